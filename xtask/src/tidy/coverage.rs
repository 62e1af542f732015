//! docs/ref/coverage.md names tests that exist.

use std::collections::BTreeSet;

use super::documents::backticked;
use super::{Tree, Violation, pattern};

const DOC: &str = "docs/ref/coverage.md";
const SCENARIOS: &str = "e2e/tests/e2e/main.rs";

/// Whatever stands in backticks in the column "proven by" is a scenario or a function.
pub(super) fn proofs_exist(tree: &Tree) -> Vec<Violation> {
    let Some(text) = tree.get(DOC) else {
        return Vec::new();
    };
    let proofs: Vec<(usize, &str)> = (1..)
        .zip(text.lines())
        .filter(|(_, line)| line.starts_with('|'))
        .filter_map(|(number, line)| Some((number, line.split('|').nth(2)?)))
        .flat_map(|(number, cell)| backticked(cell).map(move |name| (number, name)))
        .collect();
    let wanted: BTreeSet<&str> = proofs.iter().map(|(_, name)| *name).collect();
    let scenarios = tree.get(SCENARIOS).unwrap_or_default();
    let mut there: BTreeSet<String> = pattern(r#""(\w+)""#)
        .captures_iter(scenarios)
        .map(|it| it[1].to_owned())
        .collect();
    for (_, code) in tree.with_extension("rs") {
        let functions = code.split("fn ").skip(1);
        let names = functions.filter_map(|rest| Some(rest.split_once('(')?.0));
        there.extend(
            names
                .filter(|name| wanted.contains(name))
                .map(str::to_owned),
        );
    }
    proofs
        .into_iter()
        .filter(|(_, name)| !there.contains(*name))
        .map(|(line, name)| {
            let message =
                format!("there is no test or scenario `{name}`; name the one that proves it");
            Violation::new(DOC, line, message)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proof_that_is_gone_is_told() {
        let tree = Tree::planted([
            (
                DOC,
                "# x\n| promise | proven by | planted |\n|---|---|---|\n| `max` | `it_holds`, `smoke`, `it_is_gone` | `x` |\n",
            ),
            (SCENARIOS, "name: \"smoke\",\n"),
            ("worker/tests/a.rs", "#[test]\nfn it_holds() {}\n"),
        ]);
        let told: Vec<_> = proofs_exist(&tree)
            .into_iter()
            .map(|it| (it.line, it.message.contains("it_is_gone")))
            .collect();
        assert_eq!(told, [(4, true)]);
        assert_eq!(proofs_exist(&Tree::planted([])), []);
    }
}
