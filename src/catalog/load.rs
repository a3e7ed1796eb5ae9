//! The embedded entries: read strictly and cross-checked, so that a mistake in one stops the start and not a flow.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value as Json;

use super::{
    Action, Catalog, Confirm, ConnectionKind, Context, Effect, EnumType, Field, Look, LookInput, LookKind, Mapping,
    ObjectType, Paging, Param, Place, TargetSpec, TriggerSpec, Type, decode,
};
use crate::error::Error;

/// Longest text of a type; it bounds how deep one may be.
const LONGEST_TYPE: usize = 2000;

const TYPES: [(&str, &str); 3] = [
    ("types.yaml", include_str!("types.yaml")),
    ("mde_types.yaml", include_str!("mde_types.yaml")),
    ("graph_types.yaml", include_str!("graph_types.yaml")),
];
const TRIGGERS: &str = include_str!("triggers.yaml");
const ACTIONS: [(&str, &str); 14] = [
    ("mde.yaml", include_str!("mde.yaml")),
    ("mde_alerts.yaml", include_str!("mde_alerts.yaml")),
    ("mde_machines.yaml", include_str!("mde_machines.yaml")),
    ("mde_response.yaml", include_str!("mde_response.yaml")),
    ("mde_indicators.yaml", include_str!("mde_indicators.yaml")),
    ("mde_entities.yaml", include_str!("mde_entities.yaml")),
    ("mde_exposure.yaml", include_str!("mde_exposure.yaml")),
    ("mde_assessments.yaml", include_str!("mde_assessments.yaml")),
    ("xdr.yaml", include_str!("xdr.yaml")),
    ("cloud_apps.yaml", include_str!("cloud_apps.yaml")),
    ("entra.yaml", include_str!("entra.yaml")),
    ("exchange.yaml", include_str!("exchange.yaml")),
    ("azure.yaml", include_str!("azure.yaml")),
    ("messages.yaml", include_str!("messages.yaml")),
];

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TypesFile {
    enums: BTreeMap<String, Vec<String>>,
    entities: BTreeMap<String, EntityEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct EntityEntry {
    doc: String,
    /// The reference does not list every field: others may be read, as `any`.
    #[serde(default)]
    open: bool,
    fields: BTreeMap<String, FieldEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FieldEntry {
    #[serde(rename = "type")]
    ty: String,
    doc: String,
    #[serde(default)]
    untrusted: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ActionsFile {
    actions: Vec<ActionEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ActionEntry {
    pub(super) name: String,
    /// The kind of connection that serves it, where its connector alone does not say so.
    connection: Option<ConnectionKind>,
    title: String,
    doc: String,
    pub(super) effect: Effect,
    undo: Option<String>,
    pub(super) method: Option<String>,
    pub(super) path: Option<String>,
    pub(super) native: Option<String>,
    body: Option<Json>,
    #[serde(default)]
    query: BTreeMap<String, String>,
    pub(super) inputs: Vec<ParamEntry>,
    #[serde(default)]
    any_of: Vec<Vec<String>>,
    output: String,
    pub(super) mapping: String,
    permission: String,
    rate_class: Option<String>,
    #[serde(default)]
    paging: PagingEntry,
    target: Option<TargetEntry>,
    pub(super) look: Option<LookEntry>,
    confirm: Option<ConfirmEntry>,
    tag_input: Option<String>,
    tag_wire: Option<String>,
    reuse: Option<String>,
    #[serde(default)]
    creates: bool,
    /// A destructive action whose effect nothing can be asked about: a lost answer always ends with a person.
    #[serde(default)]
    unlooked: bool,
    example: String,
    source: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParamEntry {
    pub(super) name: String,
    #[serde(rename = "type")]
    ty: String,
    #[serde(default)]
    required: bool,
    default: Option<Json>,
    doc: String,
    #[serde(rename = "in")]
    place: Option<Place>,
    wire: Option<String>,
    #[serde(default)]
    context: Context,
    id: Option<String>,
    #[serde(default)]
    dialect: BTreeMap<String, String>,
    /// The service writes enum words with a small first letter.
    #[serde(default)]
    camel: bool,
    #[serde(default)]
    pub(super) file: bool,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PagingEntry {
    #[default]
    None,
    NextLink,
    TopSkip,
    HasNext,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TargetEntry {
    kind: String,
    input: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct LookEntry {
    pub(super) kind: LookKindEntry,
    action: String,
    with: BTreeMap<String, Json>,
    field: Option<String>,
    is: Option<Json>,
}

#[derive(Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum LookKindEntry {
    Isolation,
    Release,
    MachineAction,
    State,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfirmEntry {
    action: String,
    input: String,
    from: String,
    field: String,
    succeeded: Vec<String>,
    failed: Vec<String>,
    every: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggersFile {
    triggers: Vec<TriggerEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerEntry {
    name: String,
    title: String,
    doc: String,
    connection: Option<ConnectionKind>,
    poll: Option<String>,
    list: Option<String>,
    since: Option<String>,
    input: Option<String>,
    #[serde(default)]
    keys: Vec<String>,
    output: BTreeMap<String, FieldEntry>,
    #[serde(default)]
    later: bool,
    example: String,
}

pub(super) fn builtin() -> Result<Catalog, Error> {
    let mut catalog = Catalog::default();
    let mut entries = BTreeMap::new();
    for (file, text) in TYPES {
        let types: TypesFile = read(file, text)?;
        for (name, values) in types.enums {
            let values = values.into_iter().map(Arc::from).collect();
            let name: Arc<str> = name.into();
            catalog.enums.insert(Arc::clone(&name), Arc::new(EnumType { name, values }));
        }
        entries.extend(types.entities);
    }
    let names: Vec<String> = entries.keys().cloned().collect();
    let known = Catalog::default();
    let mut resolver = Resolver { enums: &catalog.enums, outer: &known, entries, done: BTreeMap::new(), open: vec![] };
    for name in &names {
        resolver.named(name).map_err(|e| fault("types", &e))?;
    }
    catalog.entities = std::mem::take(&mut resolver.done);
    let none = BTreeMap::new();
    for (file, text) in ACTIONS {
        let read: ActionsFile = read(file, text)?;
        for entry in read.actions {
            let name = entry.name.clone();
            let action = action(entry, &Names { catalog: &catalog, own: &none }, None)
                .map_err(|e| fault(file, &format!("{name}: {e}")))?;
            if catalog.actions.insert(name.as_str().into(), Arc::new(action)).is_some() {
                return Err(fault(file, &format!("{name} is there twice")));
            }
        }
    }
    let triggers: TriggersFile = read("triggers.yaml", TRIGGERS)?;
    for entry in triggers.triggers {
        let name = entry.name.clone();
        let spec = trigger(entry, &catalog).map_err(|e| fault("triggers.yaml", &format!("{name}: {e}")))?;
        catalog.triggers.insert(name.as_str().into(), Arc::new(spec));
    }
    for action in catalog.actions.values() {
        cross_check(action, &catalog).map_err(|e| fault("catalogue", &format!("{}: {e}", action.name)))?;
    }
    Ok(catalog)
}

/// By way of one tree: reading YAML straight into each type would make a parser of its own for each, all of them in memory.
fn read<T: for<'de> Deserialize<'de>>(file: &str, text: &str) -> Result<T, Error> {
    T::deserialize(tree(text).map_err(|e| fault(file, &e))?).map_err(|e| fault(file, &e.to_string()))
}

/// Strict reading: what YAML 1.1 and 1.2 disagree about is text, and a key that is there twice is an error. Deeper than 32
/// levels, or with more than 200,000 nodes, it is refused.
pub(super) fn tree(text: &str) -> Result<Json, String> {
    strict(text, 32, 200_000)
}

/// As [`tree`], for documents of others, which are larger: 200 levels, 4,000,000 nodes.
pub(crate) fn large_tree(text: &str) -> Result<Json, String> {
    strict(text, 200, 4_000_000)
}

fn strict(text: &str, max_depth: usize, max_nodes: usize) -> Result<Json, String> {
    let options = serde_yaml::options! {
        budget: serde_yaml::budget! { max_depth: max_depth, max_nodes: max_nodes, max_aliases: 0 },
        duplicate_keys: serde_yaml::DuplicateKeyPolicy::Error,
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        reject_unsupported_tags: true,
        strict_indentation: true,
        with_snippet: false,
    };
    serde_yaml::from_str_with_options(text, options).map_err(|e| in_words(&e.to_string()))
}

/// The parser names a limit that a document goes beyond by its own type's name; a person is told what to change.
pub(crate) fn in_words(message: &str) -> String {
    let Some((before, breach)) = message.split_once("budget breached: ") else { return message.to_owned() };
    let (breach, after) = breach.split_once('}').unwrap_or((breach, ""));
    let words = match breach.split(' ').next().unwrap_or("") {
        "Aliases" => "aliases (`*name`) are not taken; write the value out",
        "Depth" => "lists and maps stand too deep in each other",
        _ => "the document is larger than is read; divide it",
    };
    format!("{before}{words}{after}")
}

fn fault(file: &str, message: &str) -> Error {
    Error::config(format!("reading the catalogue's {file}: {message}"))
}

/// Turns type names into types, entities first met first.
pub(super) struct Resolver<'a> {
    pub(super) enums: &'a BTreeMap<Arc<str>, Arc<EnumType>>,
    /// Where a name is looked up that is none of these.
    pub(super) outer: &'a Catalog,
    pub(super) entries: BTreeMap<String, EntityEntry>,
    pub(super) done: BTreeMap<Arc<str>, Type>,
    pub(super) open: Vec<String>,
}

impl Resolver<'_> {
    pub(super) fn named(&mut self, name: &str) -> Result<Type, String> {
        if let Some(done) = self.done.get(name) {
            return Ok(done.clone());
        }
        if self.open.iter().any(|open| open == name) {
            return Err(format!("{name} contains itself"));
        }
        let Some(entry) = self.entries.remove(name) else {
            return self.outer.type_named(name).ok_or_else(|| format!("there is no type {name}"));
        };
        if entry.doc.is_empty() {
            return Err(format!("{name} has no doc"));
        }
        self.open.push(name.to_owned());
        let mut fields = BTreeMap::new();
        for (key, field) in entry.fields {
            let field = self.field(&field).map_err(|e| format!("{name}.{key}: {e}"))?;
            fields.insert(Arc::from(key), field);
        }
        self.open.pop();
        let ty = Type::Object(Arc::new(ObjectType { name: name.into(), fields, open: entry.open }));
        self.done.insert(name.into(), ty.clone());
        Ok(ty)
    }

    fn field(&mut self, entry: &FieldEntry) -> Result<Field, String> {
        let enums = self.enums;
        let (ty, optional) = parse_type(&entry.ty, &mut |name| match enums.get(name) {
            Some(words) => Ok(Type::Enum(Arc::clone(words))),
            None => self.named(name),
        })?;
        Ok(Field { ty, optional, doc: entry.doc.as_str().into(), untrusted: entry.untrusted })
    }
}

/// Reads a type's text; the bool says whether it ended in `?`.
fn parse_type(text: &str, named: &mut dyn FnMut(&str) -> Result<Type, String>) -> Result<(Type, bool), String> {
    let text = text.trim();
    if text.len() > LONGEST_TYPE {
        return Err(format!("a type is written in at most {LONGEST_TYPE} characters"));
    }
    if let Some(inner) = text.strip_suffix('?') {
        return Ok((parse_type(inner, named)?.0, true));
    }
    let inside = |prefix: &str| text.strip_prefix(prefix).and_then(|rest| rest.strip_suffix('>'));
    if let Some(inner) = inside("list<") {
        return Ok((Type::list(parse_type(inner, named)?.0), false));
    }
    if let Some(inner) = inside("map<") {
        return Ok((Type::map(parse_type(inner, named)?.0), false));
    }
    if let Some(inner) = inside("page<") {
        let doc = Arc::from("The entities of this page.");
        let value = Field { ty: Type::list(parse_type(inner, named)?.0), optional: false, doc, untrusted: false };
        let fields = BTreeMap::from([(Arc::from("value"), value)]);
        let name = format!("page of {inner}").into();
        return Ok((Type::Object(Arc::new(ObjectType { name, fields, open: false })), false));
    }
    if let Some(inner) = inside("enum<") {
        let values = inner.split('|').map(Arc::from).collect();
        return Ok((Type::Enum(Arc::new(EnumType { name: inner.replace('|', " | ").into(), values })), false));
    }
    let ty = match text {
        "any" => Type::Any,
        "bool" => Type::Bool,
        "int" => Type::Int,
        "number" => Type::Number,
        "string" => Type::String,
        "datetime" => Type::Datetime,
        "duration" => Type::Duration,
        name => named(name)?,
    };
    Ok((ty, false))
}

/// The types that an entry may name: those of its own file, and those of the program.
pub(super) struct Names<'a> {
    pub(super) catalog: &'a Catalog,
    pub(super) own: &'a BTreeMap<Arc<str>, Type>,
}

fn typed(text: &str, names: &Names<'_>) -> Result<(Type, bool), String> {
    let named = |name: &str| names.own.get(name).cloned().or_else(|| names.catalog.type_named(name));
    parse_type(text, &mut |name| named(name).ok_or_else(|| format!("there is no type {name}")))
}

/// An entry as an action. `kind` is that of the connections which serve it, where its file and not its connector says so.
pub(super) fn action(entry: ActionEntry, names: &Names<'_>, kind: Option<ConnectionKind>) -> Result<Action, String> {
    let connector = entry.name.split('.').next().unwrap_or("");
    let kind =
        kind.or(entry.connection).or_else(|| ConnectionKind::serving(connector)).ok_or("no connection serves it")?;
    let has_body = matches!(entry.method.as_deref(), Some("POST" | "PATCH" | "PUT"));
    let place = match &entry.method {
        None => Place::None,
        Some(_) if has_body => Place::Body,
        Some(_) => Place::Query,
    };
    let looked = entry.look.is_some() || entry.unlooked || entry.native.is_some();
    if entry.effect == Effect::Destructive && (!looked || (entry.target.is_none() && entry.native.is_none())) {
        return Err("a destructive action wants a target and a look-up, or to say that it is `unlooked`".into());
    }
    let inputs = entry.inputs.into_iter().map(|input| {
        let name = input.name.clone();
        param(input, place, names).map_err(|e| format!("{name}: {e}"))
    });
    let mapping = match entry.mapping.as_str() {
        "plain" => Mapping::Plain,
        name => Mapping::Entity(name.into()),
    };
    Ok(Action {
        inputs: inputs.collect::<Result<_, _>>()?,
        output: typed(&entry.output, names)?.0,
        name: entry.name.into(),
        kind,
        title: entry.title.into(),
        doc: entry.doc.into(),
        effect: entry.effect,
        undo: entry.undo.map(Arc::from),
        method: entry.method.map(Arc::from),
        path: entry.path.map(Arc::from),
        native: entry.native.map(Arc::from),
        body: entry.body.unwrap_or(Json::Null),
        query: entry.query.into_iter().map(|(key, value)| (key.into(), value.into())).collect(),
        mapping,
        permission: entry.permission.into(),
        rate_class: entry.rate_class.unwrap_or_else(|| "default".into()).into(),
        paging: match entry.paging {
            PagingEntry::None => Paging::None,
            PagingEntry::NextLink => Paging::NextLink,
            PagingEntry::TopSkip => Paging::TopSkip,
            PagingEntry::HasNext => Paging::HasNext,
        },
        target: entry.target.map(|target| TargetSpec { kind: target.kind.into(), input: target.input.into() }),
        look: entry.look.map(look).transpose()?,
        confirm: entry.confirm.map(confirm).transpose()?,
        tag_input: entry.tag_input.map(Arc::from),
        tag_wire: entry.tag_wire.map(Arc::from),
        any_of: entry.any_of.into_iter().map(|group| group.into_iter().map(Arc::from).collect()).collect(),
        reuse: entry.reuse.as_deref().map(duration).transpose()?,
        creates: entry.creates,
        example: entry.example.trim().into(),
        source: entry.source.into(),
    })
}

fn param(entry: ParamEntry, place: Place, names: &Names<'_>) -> Result<Param, String> {
    let (ty, optional) = typed(&entry.ty, names)?;
    if optional {
        return Err("an input is optional unless it is `required`; leave out the `?`".into());
    }
    let words = match &ty {
        Type::Enum(words) => Some(words),
        Type::List(item) => match &**item {
            Type::Enum(words) => Some(words),
            _ => None,
        },
        _ => None,
    };
    let mut dialect: BTreeMap<Arc<str>, Arc<str>> =
        entry.dialect.into_iter().map(|(key, value)| (key.into(), value.into())).collect();
    if let Some(stray) = dialect.keys().find(|key| words.is_none_or(|words| !words.values.contains(key))) {
        return Err(format!("the dialect's {stray} is no value of {ty}"));
    }
    if entry.camel {
        for word in words.into_iter().flat_map(|words| &words.values) {
            dialect.entry(Arc::clone(word)).or_insert_with(|| camel(word).into());
        }
    }
    let default = entry.default.map(|json| decode::decode(&ty, &json)).transpose().map_err(|e| e.to_string())?;
    Ok(Param {
        wire: entry.wire.unwrap_or_else(|| entry.name.clone()).into(),
        name: entry.name.into(),
        ty,
        required: entry.required,
        default,
        doc: entry.doc.into(),
        place: entry.place.unwrap_or(place),
        context: entry.context,
        id_form: entry.id.map(Arc::from),
        dialect,
        file: entry.file,
    })
}

/// `InProgress` as Microsoft Graph writes it: `inProgress`.
fn camel(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect())
}

fn look(entry: LookEntry) -> Result<Look, String> {
    let with = entry.with.into_iter().map(|(key, json)| {
        let input = match json.as_str().and_then(|text| text.strip_prefix('$')) {
            Some(ours) => LookInput::Input(ours.into()),
            None => LookInput::Const(crate::value::Value::from_json(&json).ok_or("null is no input")?),
        };
        Ok::<_, String>((Arc::from(key), input))
    });
    let kind = match entry.kind {
        LookKindEntry::Isolation => LookKind::Isolation,
        LookKindEntry::Release => LookKind::Release,
        LookKindEntry::MachineAction => LookKind::MachineAction,
        LookKindEntry::State => LookKind::State,
    };
    let state = match (entry.field, entry.is) {
        (Some(field), Some(is)) if kind == LookKind::State => {
            Some((Arc::from(field), crate::value::Value::from_json(&is).ok_or("null is no state")?))
        }
        (None, None) if kind != LookKind::State => None,
        _ => return Err("`field` and `is` belong to a look-up of the kind state".into()),
    };
    Ok(Look { kind, state, action: entry.action.into(), with: with.collect::<Result<_, _>>()? })
}

fn confirm(entry: ConfirmEntry) -> Result<Confirm, String> {
    Ok(Confirm {
        action: entry.action.into(),
        input: entry.input.into(),
        from: entry.from.into(),
        field: entry.field.into(),
        succeeded: entry.succeeded.into_iter().map(Arc::from).collect(),
        failed: entry.failed.into_iter().map(Arc::from).collect(),
        every: duration(&entry.every)?,
    })
}

fn trigger(entry: TriggerEntry, catalog: &Catalog) -> Result<TriggerSpec, String> {
    let mut fields = BTreeMap::new();
    let names = Names { catalog, own: &BTreeMap::new() };
    for (key, field) in entry.output {
        let (ty, optional) = typed(&field.ty, &names)?;
        fields.insert(Arc::from(key), Field { ty, optional, doc: field.doc.into(), untrusted: field.untrusted });
    }
    let input = entry.input.unwrap_or_else(|| "since".into());
    if let Some(list) = entry.list.as_deref() {
        let Some(action) = catalog.action(list) else { return Err(format!("there is no action {list}")) };
        if action.input(&input).is_none() || action.effect != Effect::Read {
            return Err(format!("{list} can't be polled: it takes no `{input}`"));
        }
    }
    let output = Type::Object(Arc::new(ObjectType { name: entry.name.as_str().into(), fields, open: false }));
    Ok(TriggerSpec {
        name: entry.name.into(),
        title: entry.title.into(),
        doc: entry.doc.into(),
        connection: entry.connection,
        output,
        poll: entry.poll.as_deref().map(duration).transpose()?,
        list: entry.list.map(Arc::from),
        since: entry.since.map(Arc::from),
        input: input.into(),
        keys: entry.keys.into_iter().map(Arc::from).collect(),
        later: entry.later,
        example: entry.example.trim().into(),
    })
}

fn duration(text: &str) -> Result<Duration, String> {
    let span = decode::parse_duration(text).ok_or_else(|| format!("{text} is no duration; write 5s, 15m or 4h"))?;
    Duration::try_from(span).map_err(|_| format!("{text} is negative"))
}

/// What one entry alone can't show: that the others it speaks of exist and fit.
pub(super) fn cross_check(action: &Action, catalog: &Catalog) -> Result<(), String> {
    if action.example.is_empty() || action.doc.is_empty() || action.source.is_empty() {
        return Err("it wants a doc, an example and a source".into());
    }
    if action.native.is_none() && (action.method.is_none() || action.path.is_none()) {
        return Err("it wants a method and a path, or a native handler".into());
    }
    let mut seen = BTreeSet::new();
    if let Some(twice) = action.inputs.iter().find(|param| !seen.insert(&param.name)) {
        return Err(format!("the input {} is there twice", twice.name));
    }
    let own = |name: &Arc<str>| match action.input(name) {
        Some(param) => Ok(param),
        None => Err(format!("it has no input {name}")),
    };
    for name in action.any_of.iter().flatten().chain(&action.tag_input) {
        own(name)?;
    }
    if let Some(target) = &action.target {
        own(&target.input)?;
    }
    for param in action.inputs.iter().filter(|param| param.place == Place::Path) {
        let there = action.path.as_ref().is_some_and(|path| path.contains(&format!("{{{}}}", param.wire)));
        if !there || !param.required || param.id_form.is_none() {
            return Err(format!("{} wants a place in the path, an id form, and to be required", param.name));
        }
    }
    if let Some(undo) = &action.undo {
        let other = catalog.action(undo).ok_or_else(|| format!("there is no {undo} that undoes it"))?;
        if other.effect < Effect::Write || action.effect < Effect::Write {
            return Err(format!("{undo} can't undo it: reading and telling leave nothing to undo"));
        }
    }
    if action.creates && action.effect != Effect::Write {
        return Err(
            "only a write creates: a lost answer of the others is never followed by a second call anyway".into()
        );
    }
    if let Some(look) = &action.look {
        check_look(action, look, catalog)?;
    }
    if let Some(confirm) = &action.confirm {
        check_confirm(action, confirm, catalog)?;
    }
    Ok(())
}

fn check_look(action: &Action, look: &Look, catalog: &Catalog) -> Result<(), String> {
    let other = read_action(&look.action, catalog)?;
    for (name, input) in &look.with {
        let want = other.input(name).ok_or_else(|| format!("{} has no input {name}", other.name))?;
        match input {
            LookInput::Const(value) => {
                decode::decode(&want.ty, &value.to_json()).map_err(|e| format!("the look-up's {name}: {e}"))?;
            }
            LookInput::Input(ours) => {
                let ours = action.input(ours).ok_or_else(|| format!("it has no input {ours}"))?;
                if !want.ty.accepts(&ours.ty) {
                    return Err(format!("the look-up's {name} is {}, not {}", want.ty, ours.ty));
                }
            }
        }
    }
    if let Some((field, _)) = &look.state {
        let known = other.output.field(field).ok_or_else(|| format!("{} answers no {field}", other.name))?;
        return if known.ty.is_scalar() { Ok(()) } else { Err(format!("the state {field} is no plain value")) };
    }
    if action.tag_input.is_none() && action.tag_wire.is_none() {
        return Err("a look-up finds our effects by a tag, and none is written".into());
    }
    Ok(())
}

fn check_confirm(action: &Action, confirm: &Confirm, catalog: &Catalog) -> Result<(), String> {
    let other = read_action(&confirm.action, catalog)?;
    if other.input(&confirm.input).is_none() || action.output.field(&confirm.from).is_none() {
        return Err(format!("the confirmation can't pass {} as {}", confirm.from, confirm.input));
    }
    let Some(Field { ty: Type::Enum(words), .. }) = other.output.field(&confirm.field) else {
        return Err(format!("{} has no enum field {}", other.name, confirm.field));
    };
    match confirm.succeeded.iter().chain(&confirm.failed).find(|word| !words.values.contains(word)) {
        Some(stray) => Err(format!("{stray} is no value of {}", words.name)),
        None => Ok(()),
    }
}

fn read_action<'a>(name: &str, catalog: &'a Catalog) -> Result<&'a Arc<Action>, String> {
    match catalog.action(name) {
        Some(action) if action.effect == Effect::Read => Ok(action),
        Some(_) => Err(format!("{name} is no read")),
        None => Err(format!("there is no action {name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_beyond_a_limit_is_told_in_words() {
        let deep = format!("{}1{}", "[".repeat(40), "]".repeat(40));
        let many = format!("[{}]", "1,".repeat(200_001));
        for (text, words) in [
            ("a: &x 1\nb: *x\n", "aliases (`*name`) are not taken"),
            (&deep, "lists and maps stand too deep"),
            (&many, "the document is larger than is read"),
        ] {
            let told = tree(text).unwrap_err();
            assert!(told.contains(words) && told.contains(" line ") && !told.contains("budget"), "{told}");
        }
    }

    #[test]
    fn the_embedded_catalogue_loads() {
        let catalog = builtin().unwrap();
        assert_eq!(catalog.actions.len(), 151);
        assert_eq!(catalog.triggers.values().filter(|spec| !spec.later).count(), 12);
        let isolate = catalog.action("mde.isolate_machine").unwrap();
        assert_eq!(isolate.confirm.as_ref().unwrap().every, Duration::from_secs(5));
        assert!(isolate.output.field("already").unwrap().optional);
    }

    #[test]
    fn every_example_gives_what_is_required_and_only_known_inputs() {
        for action in builtin().unwrap().actions.values() {
            let example: BTreeMap<String, Json> = read("example", &action.example).unwrap();
            for (key, json) in &example {
                let param = action.input(key).unwrap_or_else(|| panic!("{} has no {key}", action.name));
                decode::decode(&param.ty, json).unwrap_or_else(|e| panic!("{} {key}: {e}", action.name));
            }
            for param in action.inputs.iter().filter(|param| param.required) {
                assert!(example.contains_key(&*param.name), "{} {}", action.name, param.name);
            }
        }
    }

    #[test]
    fn graph_writes_small_first_letters() {
        let catalog = builtin().unwrap();
        let status = catalog.action("xdr.update_alert").unwrap().input("status").unwrap().clone();
        assert_eq!(status.dialect.get("InProgress").map(|word| &**word), Some("inProgress"));
    }

    #[test]
    fn a_type_that_is_not_there_is_named() {
        assert_eq!(
            typed("list<Alart>", &Names { catalog: &Catalog::default(), own: &BTreeMap::new() }).unwrap_err(),
            "there is no type Alart"
        );
    }
}
