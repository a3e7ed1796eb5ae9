//! Actions, triggers and entities as data. One entry is the source of the request, the type checker, `actions show`,
//! the JSON Schema, the docs and the simulated route.
//!
//! Not here: sending (see `connector`), interpretation of answers that needs code (`connector::entity`).

pub mod backends;
pub mod decode;
pub mod ids;
mod load;
mod own;
pub mod roots;
pub mod types;
pub mod zones;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use load::{in_words, large_tree};
use serde_json::Value as Json;
pub use types::{EnumType, Field, ObjectType, Type};

/// What an action does to the world.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effect {
    Read,
    Notify,
    Write,
    /// Called "containment" in texts for people.
    Destructive,
}

impl Effect {
    pub fn as_str(self) -> &'static str {
        match self {
            Effect::Read => "read",
            Effect::Notify => "notify",
            Effect::Write => "write",
            Effect::Destructive => "destructive",
        }
    }
}

/// The kinds of connection, each serving one or more connectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ConnectionKind {
    Mde,
    Graph,
    CloudApps,
    Email,
    Teams,
    Http,
    /// Azure Resource Manager, for Microsoft Sentinel: one workspace.
    Azure,
    /// Azure Monitor's query API: another host than Resource Manager's, and tokens for another audience.
    LogAnalytics,
    /// A service that the user's own catalogue describes.
    Own(OwnKind),
}

/// The name of a user's own connector, which is also the kind of its connections.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnKind {
    length: u8,
    bytes: [u8; OwnKind::LONGEST],
}

impl OwnKind {
    pub const LONGEST: usize = 31;

    /// The name where it has the form of one: a small letter, then small letters, digits and `_`.
    pub fn new(name: &str) -> Option<Self> {
        let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_lowercase());
        let fits = name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        let mut bytes = [0; Self::LONGEST];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        let length = u8::try_from(name.len()).ok()?;
        (starts && fits).then_some(OwnKind { length, bytes })
    }

    pub fn as_str(&self) -> &str {
        let name = self.bytes.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(name).unwrap_or_default()
    }
}

impl std::fmt::Debug for OwnKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl ConnectionKind {
    /// Those that the program brings along.
    pub const SHIPPED: [ConnectionKind; 8] = [
        ConnectionKind::Mde,
        ConnectionKind::Graph,
        ConnectionKind::CloudApps,
        ConnectionKind::Email,
        ConnectionKind::Teams,
        ConnectionKind::Http,
        ConnectionKind::Azure,
        ConnectionKind::LogAnalytics,
    ];

    pub fn as_str(&self) -> &str {
        match self {
            ConnectionKind::Mde => "mde",
            ConnectionKind::Graph => "graph",
            ConnectionKind::CloudApps => "cloud_apps",
            ConnectionKind::Email => "email",
            ConnectionKind::Teams => "teams",
            ConnectionKind::Http => "http",
            ConnectionKind::Azure => "azure",
            ConnectionKind::LogAnalytics => "log_analytics",
            ConnectionKind::Own(name) => name.as_str(),
        }
    }

    /// The kind of this name: one that the program brings along, or else a user's own. `None` where it is no name.
    pub fn named(name: &str) -> Option<Self> {
        let shipped = Self::SHIPPED.into_iter().find(|kind| kind.as_str() == name);
        shipped.or_else(|| OwnKind::new(name).map(ConnectionKind::Own))
    }

    /// The kind that serves a connector of the program: the word before an action's dot.
    pub fn serving(connector: &str) -> Option<Self> {
        Some(match connector {
            "mde" => ConnectionKind::Mde,
            "xdr" | "entra" | "exchange" => ConnectionKind::Graph,
            "cloud_apps" => ConnectionKind::CloudApps,
            "email" => ConnectionKind::Email,
            "teams" => ConnectionKind::Teams,
            "http" => ConnectionKind::Http,
            "azure" => ConnectionKind::Azure,
            _ => return None,
        })
    }

    /// Whether it leads where a flow or a user's file says, and not to a service of Microsoft's: such a connection keeps out of
    /// the own network unless it is allowed in.
    pub fn is_foreign(self) -> bool {
        matches!(self, ConnectionKind::Http | ConnectionKind::Own(_))
    }
}

impl serde::Serialize for ConnectionKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> serde::Deserialize<'de> for ConnectionKind {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        ConnectionKind::named(&name).ok_or_else(|| {
            serde::de::Error::custom(format!("{name:?} is no kind of connection; wanted mde, graph, http or the like"))
        })
    }
}

/// Where a text parameter ends up: decides how interpolated values are escaped, whatever the author does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Context {
    #[default]
    Plain,
    Html,
    Markdown,
    UrlSegment,
    Kql,
    Json,
    Card,
    /// A text of a card inside the JSON of a whole card.
    CardJson,
}

/// Where an input goes in the request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    Path,
    Query,
    Body,
    Header,
    /// Read by the native handler or the look-up only.
    None,
}

/// One input of an action.
#[derive(Clone, Debug)]
pub struct Param {
    pub name: Arc<str>,
    pub ty: Type,
    pub required: bool,
    pub default: Option<crate::value::Value>,
    pub doc: Arc<str>,
    pub place: Place,
    /// The service's name for it. In a body a `/` nests (`message/subject`), and the text after `@` says how the value is
    /// written (see `connector::request`). In a query, `$filter FIELD OP` makes it a term of the filter.
    /// Equal to `name` where the entry gives none.
    pub wire: Arc<str>,
    pub context: Context,
    /// How ids that people write are read (`alert_id`, `machine_id`, `user`, …): normalised and refused by shape before sending.
    pub id_form: Option<Arc<str>>,
    /// Enum values in the service's own dialect where they differ from ours.
    pub dialect: BTreeMap<Arc<str>, Arc<str>>,
    /// A path to a file beside the flow, read when the flow is loaded.
    pub file: bool,
}

/// How the answer becomes the step's output.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapping {
    /// The service's JSON, decoded by the output type with null dropped.
    Plain,
    /// A function of `connector::entity`, by name (`mde_alert`, `graph_alert`, …).
    Entity(Arc<str>),
}

/// How an effect of ours is found again, and what stands in its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookKind {
    /// Machine actions of one device: adopt ours by tag, `already` where isolated or pending, ask where a person released it.
    Isolation,
    /// As `Isolation`, for releasing.
    Release,
    /// Machine actions of one type: adopt ours by tag; nothing stands in the way.
    MachineAction,
    /// The thing itself: it is as the step wants it, or not. Setting a state twice sets it once, so no tag is needed.
    State,
}

/// The look-up before (and after an unknown outcome of) an action.
#[derive(Clone, Debug)]
pub struct Look {
    pub kind: LookKind,
    /// The read action that is called.
    pub action: Arc<str>,
    /// Its inputs: names of our own inputs, or constants.
    pub with: Vec<(Arc<str>, LookInput)>,
    /// With `LookKind::State`: the field of the answer, and its value where the state is set.
    pub state: Option<(Arc<str>, crate::value::Value)>,
}

#[derive(Clone, Debug)]
pub enum LookInput {
    Input(Arc<str>),
    Const(crate::value::Value),
}

/// How `confirm:` follows an accepted action to its end.
#[derive(Clone, Debug)]
pub struct Confirm {
    pub action: Arc<str>,
    /// The input of `action` that takes the field of our output.
    pub input: Arc<str>,
    pub from: Arc<str>,
    /// The output field that tells how it stands, and the values that end the wait.
    pub field: Arc<str>,
    pub succeeded: Vec<Arc<str>>,
    pub failed: Vec<Arc<str>>,
    pub every: Duration,
}

/// How a list is read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    None,
    /// `@odata.nextLink`, same host only.
    NextLink,
    /// `$top`/`$skip` until a page is short.
    TopSkip,
    /// `skip`/`limit` with `hasNext` in the body (Defender for Cloud Apps).
    HasNext,
}

/// What the target lock and the guard speak about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetSpec {
    /// `device`, `user`, `alert`, `incident`, …
    pub kind: Arc<str>,
    /// The input that names it.
    pub input: Arc<str>,
}

/// One action of the catalogue.
#[derive(Clone, Debug)]
pub struct Action {
    /// `mde.isolate_machine`.
    pub name: Arc<str>,
    /// The kind of connection that serves it.
    pub kind: ConnectionKind,
    pub title: Arc<str>,
    pub doc: Arc<str>,
    pub effect: Effect,
    pub undo: Option<Arc<str>>,
    /// `None` for native actions.
    pub method: Option<Arc<str>>,
    /// Path below the connection's base URL, with `{wire}` placeholders; `None` for native actions.
    pub path: Option<Arc<str>>,
    /// The handler of an action that is no single request (`email_send`, `teams_post`, `http_request`, `user_risk`, …).
    pub native: Option<Arc<str>>,
    /// Members of the body that never vary (`{"@odata.type": …}`).
    pub body: Json,
    /// Query parameters that never vary (`$expand=evidence`).
    pub query: Vec<(Arc<str>, Arc<str>)>,
    pub inputs: Vec<Param>,
    pub output: Type,
    pub mapping: Mapping,
    pub permission: Arc<str>,
    /// The bucket it draws on, such as `identity_protection`; `default` is the connection's own.
    pub rate_class: Arc<str>,
    pub paging: Paging,
    pub target: Option<TargetSpec>,
    pub look: Option<Look>,
    pub confirm: Option<Confirm>,
    /// The input that carries our tag (`comment`); `tag_wire` is a body member that carries it alone (`ExternalId`).
    pub tag_input: Option<Arc<str>>,
    pub tag_wire: Option<Arc<str>>,
    /// Groups of inputs of which at least one must be given (`query` or `query_file`).
    pub any_of: Vec<Vec<Arc<str>>>,
    /// Identical reads in flight share one call; an answer is reused for this long (only `entra.get_user_risk`).
    pub reuse: Option<Duration>,
    /// A write that makes something anew each time: after a lost answer a person decides, since a second call would make a
    /// second one.
    pub creates: bool,
    /// A `with:` block that works, as YAML.
    pub example: Arc<str>,
    /// Where the facts come from.
    pub source: Arc<str>,
}

impl Action {
    pub fn connector(&self) -> &str {
        self.name.split('.').next().unwrap_or("")
    }

    pub fn input(&self, name: &str) -> Option<&Param> {
        self.inputs.iter().find(|param| &*param.name == name)
    }
}

/// One trigger type of the catalogue.
#[derive(Clone, Debug)]
pub struct TriggerSpec {
    /// `mde.alert.new`, `schedule`, …
    pub name: Arc<str>,
    pub title: Arc<str>,
    pub doc: Arc<str>,
    /// `None` for triggers that need no service.
    pub connection: Option<ConnectionKind>,
    /// What `trigger.*` is. For `webhook` and `manual` the flow's own `fields` and `inputs` are added.
    pub output: Type,
    /// Seconds between polls by default; `None` where nothing is polled.
    pub poll: Option<Duration>,
    /// Declared, and refused at load: not in this version.
    pub later: bool,
    /// The list action that a poller calls, with its watermark as the input `since`, and the field of the listed entity that
    /// the watermark follows.
    pub list: Option<Arc<str>>,
    pub since: Option<Arc<str>>,
    /// The input of the list action that takes the watermark: `since`, or `updated_since` where changes are polled.
    pub input: Arc<str>,
    /// Keys that its `trigger:` block may have, beside those common to all.
    pub keys: Vec<Arc<str>>,
    pub example: Arc<str>,
}

impl TriggerSpec {
    /// The action that reads one of the listed entities by its id, and the input that takes the id; `None` where there is none.
    pub fn reread<'a>(&self, catalog: &'a Catalog) -> Option<(&'a Arc<Action>, &'a Arc<str>)> {
        // `mde.list_alerts` has `mde.get_alert` beside it.
        let name = self.list.as_deref()?.replacen(".list_", ".get_", 1);
        let action = catalog.action(name.trim_end_matches('s'))?;
        Some((action, &action.inputs.iter().find(|param| param.required)?.name))
    }
}

/// Everything that flows can use.
#[derive(Debug, Default)]
pub struct Catalog {
    pub actions: BTreeMap<Arc<str>, Arc<Action>>,
    pub triggers: BTreeMap<Arc<str>, Arc<TriggerSpec>>,
    /// Entities by name (`Alert`, `Device`, …).
    pub entities: BTreeMap<Arc<str>, Type>,
    pub enums: BTreeMap<Arc<str>, Arc<EnumType>>,
    /// The user's own connectors, with the file and the sentence that describe each.
    pub own: BTreeMap<Arc<str>, (Arc<str>, Arc<str>)>,
    /// A hash of the user's files, from who read them; empty where there are none.
    pub own_digest: Arc<str>,
}

impl Catalog {
    /// The catalogue that the binary carries.
    pub fn builtin() -> Result<Self, crate::error::Error> {
        load::builtin()
    }

    pub fn action(&self, name: &str) -> Option<&Arc<Action>> {
        self.actions.get(name)
    }

    pub fn trigger(&self, name: &str) -> Option<&Arc<TriggerSpec>> {
        self.triggers.get(name)
    }

    /// An entity or an enum by name.
    pub fn type_named(&self, name: &str) -> Option<Type> {
        let entity = self.entities.get(name).cloned();
        entity.or_else(|| self.enums.get(name).map(|words| Type::Enum(Arc::clone(words))))
    }
}
