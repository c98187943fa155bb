//! The tables of a store in a PostgreSQL database that several machines share.
