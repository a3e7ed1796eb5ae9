//! WF03 names and scope, WF04 types, WF07 actions, triggers and connections, WF08 safety.

use super::Page;

const fn page(code: &'static str, title: &'static str, text: &'static str, example: &'static str) -> Page {
    Page { code, title, text, example }
}

pub(super) const PAGES: &[Page] = &[
    page(
        "WF0302",
        "a name that is taken",
        "Names never shadow one another: a step, an item of a foreach, a carried value and a `set:` name each mean one thing in a flow, so that a reader need not ask which one is meant.",
        "foreach: group.members   # inside another foreach: give the item a name with `as:`",
    ),
    page(
        "WF0303",
        "a name that expressions use already",
        "Names that a flow gives cannot be words, types or functions of expressions, or the roots that the engine binds.",
        "set: { size: \"5\" }   # `size` is a function",
    ),
    page(
        "WF0304",
        "a name set to another type",
        "A name that several branches set has one type in all of them, so that what follows can be checked whichever branch ran.",
        "",
    ),
    page(
        "WF0305",
        "an outer name set inside a loop or a branch",
        "Items of a foreach and branches of a parallel run side by side, so the last one to write would win. `collect:` carries values out of a loop in the order of its input.",
        "",
    ),
    page(
        "WF0306",
        "steps that never run",
        "What stands behind a `stop:`, or behind a handler that takes every error, is never reached. It is a warning, since it does no harm, but it is rarely what was meant.",
        "",
    ),
    page(
        "WF0310",
        "a race of one",
        "`join: any` goes on with the first branch that succeeds; with a single branch there is nothing to choose from.",
        "",
    ),
    page(
        "WF0311",
        "an unknown name",
        "An expression reads a name that nothing defines at this place: no step before it, no item, no root. Text in a condition goes in quotes.",
        "if: severity == High   # alert.severity == 'High'",
    ),
    page(
        "WF0312",
        "an unknown member",
        "The type of the value is known, and it has no such member. Service fields that have no normalised name stand under `raw`.",
        "",
    ),
    page(
        "WF0313",
        "a value that may not be there",
        "The step stands in a branch, may have been skipped or may have failed. Guard the read with `has(step.field)`, or give a default.",
        "if: has(isolation.id) && isolation.status == 'Succeeded'",
    ),
    page(
        "WF0314",
        "a value that cannot be there",
        "The name is known, and it has no value at this place: it lives within an item of a foreach, in another branch, or in the `try` whose failure is being handled.",
        "",
    ),
    page(
        "WF0315",
        "a variable with a name that is taken",
        "The variable of `exists`, `all`, `map` and their like needs a name of its own.",
        "",
    ),
    page(
        "WF0401",
        "another type than wanted",
        "A parameter, a key or an output wants one type and is given another. Nothing is converted silently: \"12\" is text and 12 is an int, and one value is not a list of one.",
        "to: [soc@contoso.example]",
    ),
    page(
        "WF0402",
        "not a value of this enum",
        "The words of an enum are closed; they are read in any case of their letters. A word that no service knows would be refused when the action runs, or match nothing.",
        "",
    ),
    page(
        "WF0403",
        "a parameter that is missing",
        "The action, the flow or the object needs this value and has no default for it.",
        "",
    ),
    page(
        "WF0404",
        "an unknown parameter",
        "The action, the called flow or the object takes no such value. It would have been ignored, and the step would do something else than its text says.",
        "",
    ),
    page(
        "WF0405",
        "not a type",
        "`columns:` and `response:` declare types: string, int, number, bool, datetime, duration, any, or lists and maps of them. KQL's own words are understood too.",
        "columns: { DeviceId: string, Timestamp: datetime }",
    ),
    page(
        "WF0406",
        "cases that do not cover every value",
        "A switch has a case for each value that can come, each once, or a `default:`. A value without a case would fail the run at night.",
        "",
    ),
    page(
        "WF0407",
        "a file that cannot be chosen",
        "Files are read when the flow is loaded, so that a run is pinned to their text. Their paths have no templates in them, and a parameter comes from a file or from the flow, not from both.",
        "",
    ),
    page(
        "WF0408",
        "a file that cannot be read",
        "The path is relative to the flow's file and stays below its folder.",
        "",
    ),
    page(
        "WF0411",
        "a comparison that is never true",
        "The text is not a value of the enum that it is compared with. Comparisons use the spelling of the catalogue.",
        "alert.severity == 'High'   # not 'high'",
    ),
    page(
        "WF0412",
        "a comparison of different types",
        "Two values of these types are never equal, or have no order.",
        "",
    ),
    page(
        "WF0413",
        "an operator or a function on the wrong type",
        "The operator or function does not work on values of this type.",
        "",
    ),
    page(
        "WF0414",
        "a condition that is not true or false",
        "Conditions are boolean: there is no truth in a text, a number or a list by itself.",
        "if: size(alert.users) > 0",
    ),
    page(
        "WF0415",
        "a member of something that has none",
        "Only maps and objects have members, and lists are read by index, by `first`, or item by item.",
        "",
    ),
    page(
        "WF0416",
        "an optional value without a default",
        "`a.?b` may be nothing. `orValue` says what to use then.",
        "alert.?assigned_to.orValue('nobody') == 'nobody'",
    ),
    page(
        "WF0701",
        "an unknown action",
        "The catalogue has no action of this name. `watchfloor actions list` prints those there are.",
        "",
    ),
    page("WF0702", "an unknown trigger", "`watchfloor triggers list` prints the triggers there are.", ""),
    page(
        "WF0703",
        "an option that the trigger does not have",
        "Each trigger has options of its own beside `connection`, `where`, `dedupe` and `concurrency`, and some take a few words only.",
        "",
    ),
    page(
        "WF0704",
        "a schedule that cannot be read",
        "A schedule has either five fields of cron and the name of a zone, or a fixed distance with `every:`.",
        "{ type: schedule, cron: \"15 6 * * *\", timezone: Europe/Paris }",
    ),
    page(
        "WF0705",
        "an unknown connection",
        "The configuration has no connection of this name under `connections:`.",
        "",
    ),
    page(
        "WF0706",
        "a connection of another kind",
        "Each connector is served by one kind of connection: xdr, entra and exchange by `graph`, the others by the kind of their own name.",
        "",
    ),
    page(
        "WF0707",
        "no connection, or several",
        "`connection:` may be left out where exactly one can serve the step. With none or several, nothing is guessed.",
        "",
    ),
    page("WF0708", "an unknown flow", "`call:` takes the name of another flow of the installation.", ""),
    page(
        "WF0709",
        "a flow that calls itself",
        "A called flow is part of the run that calls it; a cycle of calls, or one that is nested too deep, would never end.",
        "",
    ),
    page(
        "WF0710",
        "a flow that cannot be called",
        "The called flow has errors of its own, or starts by itself: in a call there is no event, so only flows with a manual trigger can be called.",
        "",
    ),
    page(
        "WF0711",
        "nothing to confirm",
        "`confirm:` follows an action that a service accepts now and finishes later, such as an isolation. Other actions are done when they are answered.",
        "",
    ),
    page(
        "WF0712",
        "an effect in a race",
        "`join: any` cuts off the branches that lose, which is safe for reads only: a write that is cut off may have happened or not.",
        "",
    ),
    page(
        "WF0713",
        "pauses in the wrong order",
        "The first pause between attempts is the shortest, `cap:` the longest.",
        "",
    ),
    page(
        "WF0714",
        "a webhook that nobody can call",
        "The name stands under `webhooks:` of the configuration, where its authentication is set.",
        "",
    ),
    page(
        "WF0720",
        "not in this version",
        "The language has this, and it can be written and checked, but this version cannot run it. A flow that would wait for a person and does not is refused when it is loaded.",
        "",
    ),
    page(
        "WF0801",
        "automatic replies alone decide",
        "Whoever controls a mailbox can switch its automatic replies on, and an attacker does. Ask for something that the mailbox's owner does not control as well, such as the user's risk.",
        "all: [ out_of_office.active, \"risk.level in ['None', 'Low', 'Medium']\" ]",
    ),
    page(
        "WF0802",
        "a loop without a bound",
        "A list that is a hundred times longer than expected is the usual start of an accident. Without `max_items:` a loop takes 1000 items, and fails above.",
        "",
    ),
    page(
        "WF0803",
        "containment that nobody owns",
        "A flow that can isolate devices or disable users names the team that answers for it.",
        "owner: soc-tier2@contoso.example",
    ),
];
