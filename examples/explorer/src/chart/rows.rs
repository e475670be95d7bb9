//! Rows of two marks on a logarithmic scale: ours and Linux's.

use crate::picture::svg::{centred, document, round, style_sheet, text};
use crate::size::rounded;
use svg::node::element::{Circle, Group, Line, Path};

/// A mark of ours, and one of Linux.
#[derive(Clone, Debug, PartialEq)]
pub struct Row {
    /// What it is.
    pub name: String,
    /// Ours.
    pub ours: f64,
    /// Linux's, if that was measured.
    pub linux: Option<f64>,
}

/// What is measured in a panel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes.
    Bytes,
    /// A number of something.
    Count,
}

/// Rows on one scale.
#[derive(Clone, Debug, PartialEq)]
pub struct Panel {
    /// What they are about.
    pub title: String,
    /// In what.
    pub unit: Unit,
    /// The rows.
    pub rows: Vec<Row>,
}

/// A chart.
#[derive(Clone, Debug, PartialEq)]
pub struct Chart {
    /// What it is about.
    pub title: String,
    /// How it is read.
    pub subtitle: String,
    /// The panels, one below the other.
    pub panels: Vec<Panel>,
    /// Where figures come from.
    pub notes: Vec<String>,
}

const STYLE: &str = "\
text{font-family:system-ui,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;font-size:13px;fill:#1f2430}
.ground{fill:#ffffff;stroke:#d5d9e0}.title{font-size:18px;font-weight:600}.panel{font-size:15px;font-weight:600}
.quiet{fill:#59616f}.small{fill:#59616f;font-size:12px}.grid{stroke:#dfe3e9}.band{stroke:#aab1bd;stroke-width:2}
.ours{fill:#2767c9}.linux{fill:#c26a0a}.less{fill:#1d8348;font-weight:600}.value{font-size:12px}
";
const DARK: &str = "\
text{fill:#e4e8ef}.ground{fill:#12161d;stroke:#323945}.quiet,.small{fill:#a3acbb}.grid{stroke:#2a313c}.band{stroke:#5b6677}
.ours{fill:#6ea0ee}.linux{fill:#e69a45}.less{fill:#4fc07f}
";

/// Where rows' names begin, their scale begins and ends, and how many times less is said.
const NAME: f64 = 24.0;
const FROM: f64 = 330.0;
const TO: f64 = 770.0;
const LESS: f64 = 876.0;
const ROW: f64 = 24.0;

/// Draws `chart`.
pub fn draw(chart: &Chart) -> String {
    let mut group = Group::new()
        .add(text("title", NAME, 40.0, chart.title.clone()))
        .add(text("quiet", NAME, 62.0, chart.subtitle.clone()))
        .add(
            Circle::new()
                .set("class", "ours")
                .set("cx", FROM)
                .set("cy", 84)
                .set("r", 6),
        )
        .add(text("", FROM + 12.0, 88.0, "this library"))
        .add(diamond(FROM + 120.0, 84.0))
        .add(text("", FROM + 132.0, 88.0, "Linux"));
    let mut y = 108.0;
    for panel in &chart.panels {
        (group, y) = draw_panel(group, panel, y);
    }
    for note in &chart.notes {
        group = group.add(text("small", NAME, y + 10.0, note.clone()));
        y += 18.0;
    }
    let height = y + 16.0;
    document(height, &chart.title, style_sheet(STYLE, DARK))
        .add(group)
        .to_string()
}

fn draw_panel(mut group: Group, panel: &Panel, top: f64) -> (Group, f64) {
    let values = panel
        .rows
        .iter()
        .flat_map(|row| [Some(row.ours), row.linux])
        .flatten();
    let (least, most) = values.fold((f64::MAX, 1.0_f64), |(least, most), value| {
        (least.min(value), most.max(value))
    });
    // From the line below the least to the one above the most; lines are one step apart, whatever they say.
    let lines = lines(panel.unit);
    let first = lines
        .iter()
        .rposition(|line| *line <= least.max(1.0))
        .unwrap_or(0);
    let last = lines
        .iter()
        .position(|line| *line >= most)
        .unwrap_or(lines.len() - 1);
    let (first, last) = (
        lines.get(first).copied().unwrap_or(1.0),
        lines.get(last.max(first + 1)).copied().unwrap_or(most),
    );
    let x = |value: f64| FROM + (value.max(1.0) / first).ln() / (last / first).ln() * (TO - FROM);
    group = group.add(text("panel", NAME, top + 16.0, panel.title.clone()));
    let top = top + 44.0;
    let bottom = top + panel.rows.len() as f64 * ROW;
    for value in lines
        .into_iter()
        .filter(|line| (first..=last).contains(line))
    {
        let at = round(x(value));
        let line = Line::new().set("class", "grid").set("x1", at).set("x2", at);
        group = group
            .add(line.set("y1", round(top)).set("y2", round(bottom)))
            .add(centred("small", at, top - 6.0, scale(panel.unit, value)));
    }
    for (index, row) in panel.rows.iter().enumerate() {
        let y = top + (index as f64 + 0.5) * ROW;
        group = group.add(text("", NAME, y + 4.5, row.name.clone()));
        let ours = x(row.ours);
        if let Some(linux) = row.linux {
            let line = Line::new()
                .set("class", "band")
                .set("y1", round(y))
                .set("y2", round(y));
            group = group
                .add(line.set("x1", round(ours)).set("x2", round(x(linux))))
                .add(diamond(x(linux), y));
            let less = linux / row.ours;
            let said = match less {
                10.0.. => format!("{less:.0} × less"),
                1.05.. => format!("{less:.1} × less"),
                _ => "the same".to_owned(),
            };
            let class = if less >= 1.05 { "less" } else { "small" };
            group = group.add(text(class, LESS, y + 4.5, said).set("text-anchor", "end"));
        }
        let dot = Circle::new().set("class", "ours").set("r", 6);
        group = group.add(dot.set("cx", round(ours)).set("cy", round(y)));
        // The value stands where the band does not go.
        let (at, anchor) =
            match ours - FROM < 70.0 && row.linux.is_none_or(|linux| x(linux) - ours < 70.0) {
                true => (ours + 12.0, "start"),
                false => (ours - 11.0, "end"),
            };
        group = group.add(
            text("value", at, y + 4.5, value(panel.unit, row.ours)).set("text-anchor", anchor),
        );
    }
    (group, bottom + 18.0)
}

fn diamond(x: f64, y: f64) -> Path {
    let path = format!("M{} {}l7 7l-7 7l-7 -7z", round(x), round(y - 7.0));
    Path::new().set("class", "linux").set("d", path)
}

/// Where the lines of a scale are: one, ten and a hundred of each unit.
fn lines(unit: Unit) -> Vec<f64> {
    let (step, units) = match unit {
        Unit::Bytes => (1024.0_f64, 1..5),
        Unit::Count => (1000.0, 0..4),
    };
    let of_unit = |power| [1.0, 10.0, 100.0].map(|times| times * step.powi(power));
    units.flat_map(of_unit).collect()
}

/// What stands at a line of the scale.
fn scale(unit: Unit, value: f64) -> String {
    let (step, names) = match unit {
        Unit::Bytes => (1024.0_f64, ["B", "KiB", "MiB", "GiB", "TiB"]),
        Unit::Count => (1000.0, ["", "k", "M", "G", "T"]),
    };
    let power = (value.ln() / step.ln() + 1e-9).floor();
    let name = names.get(power as usize).copied().unwrap_or_default();
    format!("{:.0} {name}", value / step.powf(power))
}

fn value(unit: Unit, value: f64) -> String {
    match unit {
        Unit::Bytes => rounded(value),
        Unit::Count => match value {
            1e6.. => format!("{:.1} M", value / 1e6),
            1e4.. => format!("{:.0} k", value / 1e3),
            _ => format!("{:.1} k", value / 1e3),
        },
    }
}
