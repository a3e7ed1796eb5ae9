//! Devices and users that automation must leave alone, or ask about.
//!
//! The facts are read afresh right before the call is sent, so that a rename or a new tag in between counts. What a rule
//! needs and nobody knows means "ask".

use crate::config::{DeviceRule, UserRule};
use crate::value::Value;

/// What the rules say about one asset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// No rule matches, and none might.
    Clear,
    /// A rule matches; the rule in words.
    Protected(String),
    /// A rule might match; what is not known, in words.
    Unknown(String),
}

/// What is known about a device; `None` is not known, which is not the same as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeviceFacts {
    pub id: Option<String>,
    /// Its DNS name.
    pub name: Option<String>,
    pub tags: Option<Vec<String>>,
    pub group: Option<String>,
    pub os_platform: Option<String>,
    pub device_value: Option<String>,
}

/// What is known about a user; `None` is not known, which is not the same as empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserFacts {
    pub upn: Option<String>,
    /// Names of directory roles, direct and through groups.
    pub roles: Option<Vec<String>>,
    pub groups: Option<Vec<String>>,
}

impl DeviceFacts {
    /// From the entity `Device` of the catalogue.
    pub fn from_value(device: &Value) -> Self {
        let text = |key| text(device, key);
        DeviceFacts {
            id: text("id"),
            name: text("name"),
            tags: texts(device, "tags"),
            group: text("group"),
            os_platform: text("os_platform"),
            device_value: text("device_value"),
        }
    }
}

impl UserFacts {
    /// From the entity `User` of the catalogue, with the members `roles` and `groups` (lists of names) beside its own.
    pub fn from_value(user: &Value) -> Self {
        UserFacts { upn: text(user, "upn"), roles: texts(user, "roles"), groups: texts(user, "groups") }
    }
}

/// What the rules say about a device.
pub fn device(rules: &[DeviceRule], facts: &DeviceFacts) -> Found {
    judge(rules.iter().map(|rule| {
        let names = facts.name.as_ref().map(|name| names(name));
        vec![
            member("id", &rule.id, facts.id.as_ref().map(std::slice::from_ref)),
            member("name", &rule.name, names.as_deref()),
            member("tag", &rule.tag, facts.tags.as_deref()),
            member("group", &rule.group, facts.group.as_ref().map(std::slice::from_ref)),
            member("os_platform", &rule.os_platform, facts.os_platform.as_ref().map(std::slice::from_ref)),
            member("device_value", &rule.device_value, facts.device_value.as_ref().map(std::slice::from_ref)),
        ]
    }))
}

/// What the rules say about a user.
pub fn user(rules: &[UserRule], facts: &UserFacts) -> Found {
    judge(rules.iter().map(|rule| {
        vec![
            member("upn", &rule.upn, facts.upn.as_ref().map(std::slice::from_ref)),
            member("directory_role", &rule.directory_role, facts.roles.as_deref()),
            member("group", &rule.group, facts.groups.as_deref()),
        ]
    }))
}

/// One member of a rule against its fact: `holds` is `None` where the fact is not known.
struct Member {
    name: &'static str,
    pattern: String,
    holds: Option<bool>,
}

/// `None` where the rule has no such member.
fn member(name: &'static str, pattern: &Option<String>, facts: Option<&[String]>) -> Option<Member> {
    let pattern = pattern.clone()?;
    let holds = facts.map(|facts| facts.iter().any(|fact| matches(&pattern, fact)));
    Some(Member { name, pattern, holds })
}

/// A sure match of one rule decides over the doubts of another. A rule without members matches everything.
fn judge(rules: impl Iterator<Item = Vec<Option<Member>>>) -> Found {
    let mut doubt = None;
    for members in rules {
        let members: Vec<Member> = members.into_iter().flatten().collect();
        if members.iter().any(|member| member.holds == Some(false)) {
            continue;
        }
        let words = members.iter().map(|member| format!("{}: {}", member.name, member.pattern));
        let words = words.collect::<Vec<_>>().join(", ");
        match members.iter().find(|member| member.holds.is_none()) {
            None => return Found::Protected(words),
            Some(member) => {
                doubt.get_or_insert_with(|| format!("its {} is not known, and a rule has {words}", member.name));
            }
        }
    }
    doubt.map_or(Found::Clear, Found::Unknown)
}

/// A DNS name as rules may write it: whole, and the host alone.
fn names(name: &str) -> Vec<String> {
    let host = name.split('.').next().unwrap_or(name);
    vec![name.to_owned(), host.to_owned()]
}

/// Whether a text fits a pattern with `*` for any characters, whatever the case.
fn matches(pattern: &str, text: &str) -> bool {
    wildcard(&pattern.to_lowercase(), &text.to_lowercase())
}

/// Whether a text fits a pattern with `*` for any characters.
pub(super) fn wildcard(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let (middle, tail) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*').filter(|part| !part.is_empty()) {
        // The earliest place leaves the most for what follows.
        let Some((_, after)) = text.split_once(part) else { return false };
        text = after;
    }
    text.ends_with(tail)
}

fn text(entity: &Value, key: &str) -> Option<String> {
    entity.get(key).and_then(Value::as_str).map(str::to_owned)
}

/// A list of texts; an item that is no text makes the whole list unknown.
fn texts(entity: &Value, key: &str) -> Option<Vec<String>> {
    entity.get(key)?.as_list()?.iter().map(|item| item.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    fn pc() -> DeviceFacts {
        DeviceFacts {
            id: some("aa"),
            name: some("PC-17.contoso.example"),
            tags: Some(vec!["floor-2".into()]),
            group: some("Workstations"),
            os_platform: some("Windows11"),
            device_value: some("Normal"),
        }
    }

    fn is_protected(rule: DeviceRule, facts: &DeviceFacts) -> bool {
        matches!(device(&[rule], facts), Found::Protected(_))
    }

    #[test]
    fn patterns_have_stars_and_ignore_case() {
        for (pattern, text) in [
            ("*Server*", "WINDOWSSERVER2022"),
            ("dc*", "dc"),
            ("*", ""),
            ("a*b*c", "a-b-b-c"),
            ("*a*a*", "aa"),
            ("ÉTÉ", "été"),
            ("**x", "x"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in
            [("dc*", "xdc"), ("ab*ba", "aba"), ("*a*a*", "a"), ("", "a"), ("a*b*c", "ac"), ("a", "ab")]
        {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn each_member_of_a_device_is_matched() {
        let none = DeviceRule::default();
        for (hit, miss) in [
            (DeviceRule { id: some("AA"), ..none.clone() }, DeviceRule { id: some("a"), ..none.clone() }),
            (DeviceRule { tag: some("FLOOR-*"), ..none.clone() }, DeviceRule { tag: some("floor"), ..none.clone() }),
            (DeviceRule { group: some("work*"), ..none.clone() }, DeviceRule { group: some("x"), ..none.clone() }),
            (
                DeviceRule { os_platform: some("*11"), ..none.clone() },
                DeviceRule { os_platform: some("*Server*"), ..none.clone() },
            ),
            (
                DeviceRule { device_value: some("normal"), ..none.clone() },
                DeviceRule { device_value: some("High"), ..none.clone() },
            ),
            (DeviceRule { name: some("pc-17"), ..none.clone() }, DeviceRule { name: some("pc-1"), ..none.clone() }),
            (
                DeviceRule { name: some("*.contoso.example"), ..none.clone() },
                DeviceRule { name: some("contoso*"), ..none },
            ),
        ] {
            assert!(is_protected(hit.clone(), &pc()), "{hit:?}");
            assert_eq!(device(std::slice::from_ref(&miss), &pc()), Found::Clear, "{miss:?}");
        }
    }

    #[test]
    fn every_given_member_must_match() {
        let rule = |group: &str| DeviceRule { name: some("pc*"), group: some(group), ..DeviceRule::default() };
        assert!(is_protected(rule("Workstations"), &pc()));
        assert!(!is_protected(rule("Servers"), &pc()));
        assert!(is_protected(DeviceRule::default(), &pc()), "a rule without members spares everything");
    }

    #[test]
    fn what_is_not_known_is_asked_about() {
        let unknown = DeviceFacts { group: None, tags: None, ..pc() };
        let by_group = DeviceRule { group: some("Servers"), ..DeviceRule::default() };
        assert!(matches!(device(std::slice::from_ref(&by_group), &unknown), Found::Unknown(_)));
        let ruled_out = DeviceRule { name: some("dc*"), ..by_group.clone() };
        assert_eq!(device(&[ruled_out], &unknown), Found::Clear, "another member decides");
        let sure = DeviceRule { name: some("pc*"), ..DeviceRule::default() };
        assert!(matches!(device(&[by_group, sure], &unknown), Found::Protected(_)), "a sure match decides");
        let by_tag = DeviceRule { tag: some("x"), ..DeviceRule::default() };
        let untagged = DeviceFacts { tags: Some(vec![]), ..pc() };
        assert_eq!(device(&[by_tag], &untagged), Found::Clear, "no tags is known");
    }

    #[test]
    fn users_have_roles_and_groups() {
        let rules = [
            UserRule { directory_role: some("*Administrator*"), ..UserRule::default() },
            UserRule { group: some("break-glass"), upn: some("*@contoso.example"), ..UserRule::default() },
        ];
        let user_of = |roles: &[&str], groups: Option<&[&str]>| UserFacts {
            upn: some("ann@contoso.example"),
            roles: Some(roles.iter().map(|role| (*role).to_owned()).collect()),
            groups: groups.map(|groups| groups.iter().map(|group| (*group).to_owned()).collect()),
        };
        assert_eq!(user(&rules, &user_of(&["Reports Reader"], Some(&["all"]))), Found::Clear);
        assert!(matches!(user(&rules, &user_of(&["Global Administrator"], None)), Found::Protected(_)));
        assert!(matches!(user(&rules, &user_of(&[], Some(&["Break-Glass"]))), Found::Protected(_)));
        assert!(matches!(user(&rules, &user_of(&[], None)), Found::Unknown(_)));
    }

    #[test]
    fn facts_come_from_entities() {
        let tags = Value::list(vec![Value::str("floor-2")]);
        let device = Value::object([("id", Value::str("aa")), ("tags", tags), ("name", Value::str("pc"))]);
        let facts = DeviceFacts::from_value(&device);
        assert_eq!((facts.tags, facts.group, facts.name), (Some(vec!["floor-2".into()]), None, some("pc")));
        let odd = Value::object([("roles", Value::list(vec![Value::Int(1)])), ("upn", Value::str("a@b"))]);
        assert_eq!(UserFacts::from_value(&odd), UserFacts { upn: some("a@b"), roles: None, groups: None });
    }
}
