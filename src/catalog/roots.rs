//! Types of the names that every flow can read beside its own steps: `flow`, `run`, `error` and the facts about a step.

use super::Type;

/// `flow.*`.
pub fn flow() -> Type {
    Type::object("Flow", [("name", Type::String, false), ("owner", Type::String, true)])
}

/// `run.*`. `url` is there only where the server's public address is configured.
pub fn run() -> Type {
    Type::object("Run", [("id", Type::String, false), ("url", Type::String, true), ("started", Type::Datetime, false)])
}

/// `error.*`, in handlers. `status` is 0 where no service answered.
pub fn error() -> Type {
    Type::object(
        "Error",
        [
            ("step", Type::String, false),
            ("code", Type::String, false),
            ("status", Type::Int, false),
            ("message", Type::String, false),
        ],
    )
}

/// `steps.ID.*`: how a step went. `took` is the time from its first attempt to its end.
pub fn step_facts() -> Type {
    Type::object(
        "Step",
        [
            ("status", Type::String, false),
            ("attempts", Type::Int, false),
            ("took", Type::Duration, true),
            ("error", error(), true),
        ],
    )
}
