use jiff::tz::TimeZone;
use unicode_width::UnicodeWidthStr;

use super::*;
use crate::report::samples;

fn shown(width: usize, summary: &Summary) -> String {
    let mut out = Vec::new();
    push(&mut out, &mut Clock::new(TimeZone::UTC), width, summary);
    String::from_utf8(out).unwrap()
}

#[test]
fn golden() {
    assert_eq!(
        shown(100, &samples::summary()),
        include_str!("golden/summary-100.txt")
    );
}

#[test]
fn nothing_seen_says_what_to_try() {
    let mut summary = samples::summary();
    (summary.counted, summary.reported) = (0, 0);
    summary.rows.clear();
    summary.losses.clear();
    summary.misses.clear();
    assert_eq!(
        shown(100, &summary),
        "\nNo connection reported in 20.0 s, watching server port 2379. A connection is reported when it ends: watch longer, use fewer filters, or add --all for healthy connections.\n"
    );
    // Losses are told all the same.
    summary.losses = samples::summary().losses;
    assert!(shown(100, &summary).ends_with(
        "\nLost (the list above is incomplete):\n  12 records lost, the ring was full (--ring-size; counts stay exact)\n"
    ));
}

#[test]
fn causes_with_what_to_do() {
    let mut summary = samples::summary();
    let counted = Counted {
        cause: samples::cause(),
        connections: 7,
    };
    summary.causes = vec![counted; 22];
    let text = shown(100, &summary);
    let one = "  7× packets left untranslated: exempted by \\x1b[2Jrule 1\n    do: iptables -D '$(reboot)'  # now\n    do: Or\\nnot\n";
    let all = format!(
        "\nCauses of failed connections, latest example each:\n{}  … and 2 more (-o json has all)\n",
        one.repeat(20)
    );
    assert!(text.contains(&all), "{text}");
}

#[test]
fn nothing_lost_is_nothing_said() {
    let mut summary = samples::summary();
    for tally in summary.losses.iter_mut().chain(&mut summary.misses) {
        tally.count = 0;
    }
    assert!(!shown(100, &summary).contains("Lost") && !shown(100, &summary).contains("Not named"));
}

#[test]
fn twenty_sources_and_the_rest_counted() {
    let text = shown(100, &samples::summary());
    assert_eq!(text.matches(":2379").count(), 20);
    assert!(
        text.contains("\n… and 5 more sources, 5 connection ends"),
        "{text}"
    );
}

#[test]
fn rows_of_ipv4_fit() {
    let mut summary = samples::summary();
    summary.rows.retain(|row| row.destination.is_ipv4());
    for width in [100, 120, 160, 240] {
        for line in shown(width, &summary)
            .lines()
            .skip(3)
            .take_while(|line| !line.starts_with('…'))
        {
            assert!(line.width() <= width, "{width}: {line}");
        }
    }
}

#[test]
fn rows_of_several_nodes_say_of_which() {
    let mut summary = samples::summary();
    assert!(!shown(120, &summary).contains("NODE"));
    for (row, node) in summary
        .rows
        .iter_mut()
        .zip(["alpha", "be\x1bta"].into_iter().cycle())
    {
        row.node = Some(node.into());
    }
    let text = shown(120, &summary);
    let header = text.lines().find(|line| line.starts_with("COUNT")).unwrap();
    assert!(header.contains("EVERY") && header.contains("  NODE"), "{header}");
    assert!(
        text.contains("  alpha  ") && text.contains("  be\\x1bta  "),
        "{text}"
    );
}
