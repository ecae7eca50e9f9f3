use std::path::Path;

use super::*;

const TEXT: &str = "format = 1\n[platform]\nname = \"shop\"\n\
    [[component]]\nname = \"uploads\"\nkind = \"files\"\npaths = [\"/srv/uploads\"]\n\
    [[component]]\nname = \"database\"\nkind = \"files\"\npaths = [\"/srv/db\"]\nreferences = [\"uploads\"]\n\
    [[component]]\nname = \"search\"\nkind = \"none\"\nderived_from = [\"database\"]\n";

fn plan() -> Plan {
    Plan::load(Path::new("p.toml"), TEXT).unwrap()
}

#[test]
fn the_graph_shows_both_orders_and_their_reasons() {
    assert_eq!(
        graph(&plan()),
        "Capture, one after the other:\n\
         \x20  1  database  files     before uploads, which it references\n\
         \x20  2  uploads   files\n\
         \x20  3  search    none\n\
         \n\
         Restore, each number after the one before it:\n\
         \x20  1  uploads   files\n\
         \x20  2  database  files     after uploads\n\
         \x20  3  search    none      after database\n"
    );
}

#[test]
fn the_graph_for_graphviz_has_an_arrow_for_each_reference() {
    let dot = graph_dot(&plan());
    assert!(dot.starts_with("digraph plan {\n") && dot.ends_with("}\n"));
    assert!(dot.contains("  \"database\" -> \"uploads\" [label = \"references\", style = solid];\n"));
    assert!(dot.contains("  \"search\" -> \"database\" [label = \"derived from\", style = dashed];\n"));
    assert!(dot.contains("  \"search\" [label = \"search\\nnone, derived\"];\n"));
}

#[test]
fn a_check_counts_components_and_lists_problems() {
    let found = check(&plan());
    assert_eq!(found.to_text(), "Plan p.toml is valid: 3 components\n");
    assert_eq!(found.to_json(), json!({ "plan": "p.toml", "components": 3, "problems": [] }));
    let found = PlanCheck { problems: vec![Problem::new("key", "is readable")], ..found };
    assert!(found.to_text().ends_with("Problem: key is readable\n"));
}
