use super::{World, one_fault};
use crate::catalog::{Context, Type};
use crate::expr::Template;
use crate::expr::template::helpers;
use crate::value::Value;

fn text(world: &World, template: &str) -> String {
    let value =
        compiled(world, template, Context::Plain, false).eval(world).unwrap_or_else(|e| panic!("{template}: {e}"));
    value.as_str().unwrap_or_else(|| panic!("{template}: {value:?}")).to_owned()
}

fn compiled(world: &World, template: &str, context: Context, file: bool) -> Template {
    Template::compile(template, world, context, file).unwrap_or_else(|f| panic!("{template}: {f:?}")).0
}

#[test]
fn the_texts_of_the_shipped_flows_render() {
    let world = World::new();
    assert_eq!(text(&world, "{{ alert.id }} on {{ alert.device.name }}"), "a1 on dc-01");
    assert_eq!(text(&world, "why: {{ explain verdict }}"), "why: risk.level is 'High'");
    assert_eq!(text(&world, "{{= alert.severity + '!' }}"), "High!");
    assert_eq!(
        text(&world, "at {{ alert.created }}, {{ took }}, {{ skip }}, {{ alert.score }}"),
        "at 2026-11-20T07:20:00Z, 4h, 100, 7.5"
    );
    assert_eq!(text(&world, "a  {{~ alert.id ~}}  b"), "aa1b");
    assert_eq!(text(&world, "{{! note }}x\\{{ y }}"), "x{{ y }}");
    assert_eq!(text(&world, "{{ upper (truncate alert.device.name 3) }}"), "DC…");
    assert_eq!(text(&world, "{{ default isolation.id 'none' }}"), "none");
    assert_eq!(text(&world, "no braces } here"), "no braces } here");
}

#[test]
fn a_lone_expression_keeps_its_type() {
    let world = World::new();
    let skip = compiled(&world, "{{ skip }}", Context::Plain, false);
    assert_eq!((skip.ty.clone(), skip.eval(&world)), (Type::Int, Ok(Value::Int(100))));
    let ips = compiled(&world, "{{ alert.ips }}", Context::Plain, false);
    assert_eq!(ips.eval(&world).unwrap().as_list().unwrap().len(), 2);
    assert_eq!(compiled(&world, " {{ skip }}", Context::Plain, false).ty, Type::String);
    let plain = compiled(&world, "text", Context::Plain, false);
    assert!(plain.is_plain() && !skip.is_plain());
    assert_eq!(compiled(&world, "{{ explain verdict }}", Context::Plain, false).explains().len(), 1);
}

#[test]
fn every_example_of_the_helpers_is_true() {
    let row = |name: &str| Value::object([("name", Value::str(name))]);
    let world = World::new()
        .with("tags", Value::list(vec![Value::str("a"), Value::str("b")]))
        .with("rows", Value::list(vec![row("dc-01"), row("dc-02")]))
        .with("at", Value::Datetime("2026-11-20T07:20:00Z".parse().unwrap()))
        .with("name", Value::str("dc-01"));
    let mut world = world;
    for name in ["tags", "rows", "at", "name", "missing"] {
        world.types.insert(name, crate::expr::Binding { ty: Type::Any, presence: crate::expr::Presence::Always });
    }
    for helper in helpers::TABLE {
        let (template, wanted) = helper.example;
        // In the middle of text, as people use it.
        assert_eq!(text(&world, &format!("<{template}>")), format!("<{wanted}>"), "{}", helper.name);
    }
}

#[test]
fn values_are_escaped_and_the_authors_text_is_not() {
    let world = World::new();
    let html = compiled(&world, "<p>{{ alert.title }}</p>", Context::Html, true);
    assert_eq!(html.eval(&world), Ok(Value::str("<p>Odd {{ secrets.graph }} &lt;b&gt;</p>")));
    let helper = compiled(&world, "<p>{{ upper alert.title }}</p>", Context::Html, true);
    assert_eq!(helper.eval(&world), Ok(Value::str("<p>ODD {{ SECRETS.GRAPH }} &lt;B&gt;</p>")));
}

#[test]
fn a_table_is_markup_with_escaped_cells() {
    let row = Value::object([("name", Value::str("<b>|x\n"))]);
    let world = World::new().with("any", Value::object([("rows", Value::list(vec![row]))]));
    let shown = |context| compiled(&world, "{{ table any.rows }}", context, false).eval(&world).unwrap();
    assert_eq!(
        shown(Context::Html),
        Value::str("<table>\n<tr><th>name</th></tr>\n<tr><td>&lt;b&gt;|x </td></tr>\n</table>")
    );
    assert_eq!(shown(Context::Markdown), Value::str("| name |\n| --- |\n| &lt;b&gt;\\|x  |"));
}

#[test]
fn files_have_blocks_over_typed_paths() {
    let world = World::new();
    let template = "{{#each alert.evidence}}{{ kind }} of {{ alert.id }}{{#if sha256}} {{ sha256 }}{{else}} -{{/if}};{{else}}none{{/each}}";
    assert_eq!(
        compiled(&world, template, Context::Plain, true).eval(&world),
        Ok(Value::str("file of a1 -;process of a1 -;"))
    );
    let template = "{{#each alert.ips}}{{ item }} {{/each}}";
    assert_eq!(compiled(&world, template, Context::Plain, true).eval(&world), Ok(Value::str("10.1.2.3 192.0.2.1 ")));
}

#[test]
fn lines_of_a_block_alone_leave_no_line() {
    let world = World::new();
    let template = "a\n{{#each alert.ips}}\n- {{ item }}\n{{/each}}\n{{! note }}\nz\n";
    assert_eq!(
        compiled(&world, template, Context::Plain, true).eval(&world),
        Ok(Value::str("a\n- 10.1.2.3\n- 192.0.2.1\nz\n"))
    );
}

#[test]
fn what_the_parser_reads_in_another_way_is_hidden_from_it() {
    let world = World::new().with("any", Value::object([("elsewhere", Value::str("there"))]));
    let cases = [
        // A comment ends at the first mark, whatever is in it.
        ("{{!--}}{{ skip }} --}}", "100 --}}"),
        ("{{!-- {{ skip }} --}}.", "."),
        // Braces and quotes of CEL are CEL's.
        ("{{= {'a': {'b': skip}}.a.b }}.", "100."),
        ("{{= '}}' + \"{{\" }}.", "}}{{."),
        ("{{~= skip ~}}  .", "100."),
        ("é {{= 'é' }} {{ skip }}", "é é 100"),
        // Backslashes: one writes the braces, two are one.
        ("\\{{ skip }} {{ skip }}", "{{ skip }} 100"),
        ("c:\\\\{{ skip }}", "c:\\100"),
        ("\\{{{{ skip }}}}", "{{{{ skip }}}}"),
        // Quoted text takes line breaks, either quote and any escape.
        ("{{ default any.x 'a\n\\'\\\"\\d}}' }}.", "a\n'\"d}}."),
        ("{{ truncate alert.title 3 }}.", "Od…."),
        ("{{ 'text' }}{{ 5 }}{{ -2.5 }}{{ true }}", "text5-2.5true"),
        ("{{ (upper alert.id) }}.", "A1."),
        ("{{ upper (upper (upper alert.id)) }}.", "A1."),
    ];
    for (template, wanted) in cases {
        assert_eq!(text(&world, template), wanted, "{template}");
    }
    let faults = Template::compile("{{elsewhere}}", &world, Context::Plain, true).expect_err("no such name");
    assert_eq!(one_fault("{{elsewhere}}", &faults).0, "WF0311 «elsewhere»: unknown name `elsewhere`");
    let many = "{{ skip }}".repeat(1_001);
    assert!(Template::compile(&many, &world, Context::Plain, false).is_err());
}

#[test]
fn what_is_not_in_the_language_is_refused_with_its_fix() {
    let world = World::new();
    let cases = [
        ("x {{ this }}", "WF0602 «this»: `this` is not in the language", true),
        ("x {{ @root.alert }}", "WF0602 «@root.alert»: `@` variables are not in the language", true),
        ("x {{ ../alert }}", "WF0602 «../alert»: `../` is not in the language", true),
        (
            "x {{{ alert.id }}}",
            "WF0602 «{{{»: `{{{ }}}` is not in the language: values are always escaped for where they go",
            true,
        ),
        (
            "x {{& alert.id }}",
            "WF0602 «{{& alert.id }}»: `{{&` is not in the language: values are always escaped for where they go",
            true,
        ),
        ("{{{{raw}}}}", "WF0602 «{{{{»: raw blocks are not in the language", true),
        ("{{> part }}", "WF0602 «{{> part }}»: partials are not in the language", true),
        ("{{* deco }}", "WF0602 «{{* deco }}»: decorators are not in the language", true),
        ("{{#with alert}}{{/with}}", "WF0602 «{{#with alert}}»: the block `{{#with}}` is not in the language", true),
        ("{{#if alert.id}}x{{/if}}", "WF0602 «{{#if alert.id}}»: blocks work in template files only", false),
        ("x {{ lookup alert 'id' }}", "WF0603 «lookup»: unknown helper `lookup`", true),
        ("x {{ uper alert.id }}", "WF0603 «uper»: unknown helper `uper`", true),
        ("x {{ alert.constructor }}", "WF0602 «alert.constructor»: this name is not in the language", true),
        ("x {{ alert.__proto__ }}", "WF0602 «alert.__proto__»: this name is not in the language", true),
        ("x {{ alert.titel }}", "WF0312 «titel»: alert (Alert) has no member `titel`", true),
        (
            "x {{ alert.ips }}",
            "WF0604 «{{ alert.ips }}»: alert.ips is list of string, which can't be printed in text",
            true,
        ),
        ("x {{ alert.evidence[0].kind }}", "WF0602 «alert.evidence[0].kind»: an index is not part of a path", true),
        ("x {{ alert.severity == 'High' }}", "WF0601 «==»: `==` is not part of a path", true),
        ("x {{= alert.severity == 'high' }}", "WF0411 «'high'»: 'high' is not a value of AlertSeverity", true),
        ("x {{ count skip }}", "WF0606 «skip»: `count` does not work on int", true),
        ("x {{ isolation.id }}", "WF0313 «isolation»: `isolation` may have no value here: it is in a branch", true),
        (
            "x {{ explain other }}",
            "WF0606 «{{ explain other }}»: `explain` wants the id of an `if` step before this place, not `other`",
            true,
        ),
        ("x {{ alert.id", "WF0601 «{{ alert.id»: `{{` is not closed", true),
        ("x {{#if alert.id}}", "WF0601 «{{#if»: `{{#if}}` is not closed", true),
        ("x {{/if}}", "WF0601 «{{/if}}»: `{{/if}}` closes nothing", true),
        ("{{#if skip}}{{else}}{{else}}{{/if}}", "WF0601 «{{else}}»: `{{#if}}` is closed by `{{else}}`", true),
        ("{{#each alert.ips as x}}{{/each}}", "WF0607 «{{#each alert.ips as x}}»: `{{#each}}` takes one path", true),
        ("x {{ upper (x.y alert.id) }}", "WF0603 «x.y»: unknown helper `x.y`", true),
        ("x {{ upper null }}", "WF0311 «null»: unknown name `null`", true),
        ("x {{ 'a' alert.id }}", "WF0601 «'a'»: a path or a helper comes first", true),
    ];
    for (template, wanted, file) in cases {
        let faults = Template::compile(template, &world, Context::Plain, file).expect_err(template);
        assert_eq!(one_fault(template, &faults).0, wanted, "{template}");
    }
}
