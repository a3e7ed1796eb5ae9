//! A service's JSON to values, by type.
