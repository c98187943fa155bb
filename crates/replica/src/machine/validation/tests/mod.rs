mod cases;
mod model;
mod search;
