//! JSON Schema of flow files, from the same tables of keys that lowering uses.
