//! Inventories as their programs write them.
