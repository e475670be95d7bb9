//! A picture as SVG, as wide as a README, on light ground and on dark.

use super::{Array, Cell, Counted, Kind, Panel, Picture, Strip};
use crate::table::number;
use svg::Document;
use svg::node::element::{Group, Path, Rectangle, Style, Text, Title};

/// How wide pictures are.
pub const WIDTH: f64 = 900.0;

/// The margin at all sides.
const MARGIN: f64 = 24.0;

/// How high cells are.
const CELL: f64 = 24.0;

/// How wide cells are at most and at least.
const CELL_WIDTH: [f64; 2] = [26.0, 15.0];

/// How far apart strips are.
const BETWEEN: f64 = 22.0;

/// How large the box of a frame is.
const FRAME: [f64; 2] = [82.0, 36.0];

/// Between a strip and what it leads to.
const DROP: f64 = 58.0;

/// What everything looks like; in the dark, what is said last counts.
const STYLE: &str = "\
text{font-family:system-ui,'Segoe UI',Roboto,'Helvetica Neue',Arial,sans-serif;font-size:13px;fill:#1f2430}
.ground{fill:#ffffff;stroke:#d5d9e0}
.title{font-size:18px;font-weight:600}.panel{font-size:15px;font-weight:600}
.quiet,.label{fill:#59616f}.label{font-size:12px}.gap{fill:#59616f;font-size:12px}
.strip{fill:#f3f5f8;stroke:#aab1bd}.rule{stroke:#d5d9e0}
.letter{fill:#ffffff;font-size:12px;font-weight:600}.name{fill:#ffffff;font-size:12px;font-weight:600}
.number{fill:#ffffff;font-size:11px;font-family:ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace}
.own{fill:#6c7789}.head{fill:#2767c9}.tail{fill:#c26a0a}.order{fill:#b23a70}.stub{fill:#7650c7}.packed{fill:#13806f}.block{fill:#5f7a1d}.table{fill:#475063}.shared{fill:#1d8348}.upper{fill:#828b9b}
.wire{fill:none;stroke-width:1.3;opacity:.85}
.w-own{stroke:#6c7789}.w-head{stroke:#2767c9}.w-tail{stroke:#c26a0a}.w-order{stroke:#b23a70}.w-stub{stroke:#7650c7}.w-packed{stroke:#13806f}.w-block{stroke:#5f7a1d}.w-table{stroke:#475063}.w-shared{stroke:#1d8348}.w-upper{stroke:#828b9b}
";

/// The same in the dark.
const DARK: &str = "\
text{fill:#e4e8ef}.ground{fill:#12161d;stroke:#323945}.quiet,.label,.gap{fill:#a3acbb}
.strip{fill:#1b212b;stroke:#535d6d}.rule{stroke:#323945}
.letter,.name,.number{fill:#ffffff}
.table{fill:#5b677d}.w-table{stroke:#8d99ae}.w-own{stroke:#96a1b3}.w-head{stroke:#6ea0ee}.w-tail{stroke:#e69a45}.w-order{stroke:#de74a5}.w-stub{stroke:#a68bea}.w-packed{stroke:#45b9a6}.w-block{stroke:#9fbd55}.w-shared{stroke:#4fc07f}
";

/// The style sheet of all pictures: `style`, and `dark` where the reader's ground is.
pub fn style_sheet(style: &str, dark: &str) -> Style {
    Style::new(format!(
        "{style}@media (prefers-color-scheme:dark){{{dark}}}"
    ))
}

/// An empty picture of `height`, with its ground, called `title`.
pub fn document(height: f64, title: &str, style: Style) -> Document {
    Document::new()
        .set("viewBox", (0, 0, WIDTH as i64, height as i64))
        .set("width", WIDTH as i64)
        .set("height", height as i64)
        .set("role", "img")
        .add(Title::new(title))
        .add(style)
        .add(
            Rectangle::new()
                .set("class", "ground")
                .set("x", 0.5)
                .set("y", 0.5)
                .set("width", WIDTH - 1.0)
                .set("height", height - 1.0)
                .set("rx", 8),
        )
}

/// `text` of this class at a place.
pub fn text(class: &str, x: f64, y: f64, text: impl Into<String>) -> Text {
    Text::new(text.into())
        .set("class", class)
        .set("x", round(x))
        .set("y", round(y))
}

/// `text` around a place.
pub fn centred(class: &str, x: f64, y: f64, words: impl Into<String>) -> Text {
    text(class, x, y, words).set("text-anchor", "middle")
}

/// A tenth is enough.
pub fn round(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// How wide `text` is, about, at 12 pixels.
pub fn width_of(text: &str) -> f64 {
    text.chars().count() as f64 * 6.5
}

/// Draws `picture`.
pub fn draw(picture: &Picture) -> String {
    let mut sheet = Sheet {
        group: Group::new(),
        y: MARGIN,
        left: MARGIN,
        right: WIDTH - MARGIN,
    };
    sheet.line("title", 18.0, &picture.title);
    sheet.line("quiet", 15.0, &picture.subtitle);
    for panel in &picture.panels {
        sheet.panel(panel);
    }
    sheet.legend(&picture.legend, &picture.total);
    let height = (sheet.y + MARGIN - 8.0).ceil();
    document(height, &picture.title, style_sheet(STYLE, DARK))
        .add(sheet.group)
        .to_string()
}

/// What was drawn so far, down to `y`, and between which columns drawing goes on.
struct Sheet {
    group: Group,
    y: f64,
    left: f64,
    right: f64,
}

/// Where a strip lies.
struct Place {
    x: f64,
    width: f64,
    /// The middle of each cell, with what it leads to.
    cells: Vec<(f64, Kind, Option<usize>)>,
}

impl Place {
    /// Where wires end that come to this strip, number `index`, from entries of `uppers`: as near to them as it has cells.
    fn arrival(&self, uppers: &[Place], index: Option<usize>) -> f64 {
        let cells = uppers.iter().flat_map(|place| &place.cells);
        let from: Vec<f64> = cells
            .filter(|cell| cell.2 == index)
            .map(|cell| cell.0)
            .collect();
        let middle = from.iter().sum::<f64>() / from.len().max(1) as f64;
        let inset = (self.width / 2.0).min(13.0);
        middle.clamp(self.x + inset, self.x + self.width - inset)
    }
}

impl Sheet {
    fn add(&mut self, node: impl Into<Box<dyn svg::Node>>) {
        let group = std::mem::replace(&mut self.group, Group::new());
        self.group = group.add(node);
    }

    /// A line of text, and the space below.
    fn line(&mut self, class: &str, size: f64, words: &str) {
        if words.is_empty() {
            return;
        }
        self.add(text(class, self.left, self.y + size * 0.8, words));
        self.y += size + 7.0;
    }

    fn panel(&mut self, panel: &Panel) {
        self.y += 6.0;
        self.add(Path::new().set("class", "rule").set(
            "d",
            format!("M{MARGIN} {}H{}", round(self.y), WIDTH - MARGIN),
        ));
        self.y += 14.0;
        self.line("panel", 15.0, &panel.title);
        // Side by side where each has room in a half.
        let half = (WIDTH - 2.0 * MARGIN - BETWEEN) / 2.0;
        if let [first, second] = panel.arrays.as_slice()
            && [first, second]
                .into_iter()
                .all(|array| array_width(array) <= half)
        {
            let top = self.y;
            self.right = MARGIN + half;
            self.array(first);
            let below = std::mem::replace(&mut self.y, top);
            (self.left, self.right) = (MARGIN + half + BETWEEN, WIDTH - MARGIN);
            self.array(second);
            self.left = MARGIN;
            self.y = self.y.max(below);
            return;
        }
        for array in &panel.arrays {
            self.array(array);
        }
    }

    fn array(&mut self, array: &Array) {
        self.line("quiet", 14.0, &array.title);
        self.line("label", 12.0, &array.way.join("  →  "));
        self.y += 4.0;
        let uppers = self.strips(&array.upper);
        if !array.upper.is_empty() {
            self.y += DROP;
        }
        let top = self.y;
        let strips = self.strips(&array.strips);
        // From entries to tables: below the label is the strip.
        let label = 18.0;
        for place in &uppers {
            for (x, kind, to) in &place.cells {
                let Some(strip) = to.and_then(|to| strips.get(to)) else {
                    continue;
                };
                if matches!(kind, Kind::Table | Kind::SharedTable) {
                    let to = strip.arrival(&uppers, *to);
                    self.wire(*kind, (*x, top - DROP), (to, top - 2.0 + label - 16.0));
                }
            }
        }
        let below = self.y;
        self.y += if array.frames.is_empty() { 8.0 } else { DROP };
        self.frames(array, &uppers, &strips, (top - DROP, below));
    }

    /// Draws strips side by side, as many as there is room for.
    fn strips(&mut self, strips: &[Strip]) -> Vec<Place> {
        if strips.is_empty() {
            return Vec::new();
        }
        let room = self.right - self.left;
        let [wide, narrow] = CELL_WIDTH;
        let width = |cell_width: f64| -> f64 {
            let all: f64 = strips
                .iter()
                .map(|strip| strip_width(strip, cell_width))
                .sum();
            all + BETWEEN * (strips.len() - 1) as f64
        };
        let mut cell_width = wide;
        while cell_width > narrow && width(cell_width) > room {
            cell_width -= 1.0;
        }
        let mut places = Vec::new();
        let mut x = self.left;
        let label_y = self.y + 11.0;
        let y = self.y + 18.0;
        for strip in strips {
            let width = strip_width(strip, cell_width);
            if x + width > self.right + 0.5 && !places.is_empty() {
                break;
            }
            self.add(text("label", x, label_y, strip.label.clone()));
            places.push(self.strip(strip, x, y, cell_width));
            x += width.max(width_of(&strip.label)) + BETWEEN;
        }
        self.y = y + CELL;
        places
    }

    fn strip(&mut self, strip: &Strip, x: f64, y: f64, cell_width: f64) -> Place {
        let width = inner_width(strip, cell_width);
        self.add(
            Rectangle::new()
                .set("class", "strip")
                .set("x", round(x - 2.0))
                .set("y", round(y - 2.0))
                .set("width", round(width + 4.0))
                .set("height", CELL + 4.0)
                .set("rx", 3),
        );
        let mut cells = Vec::new();
        let mut at = x;
        for cell in &strip.cells {
            match cell {
                Cell::One { kind, to } => {
                    self.add(
                        Rectangle::new()
                            .set("class", kind.class())
                            .set("x", round(at + 1.0))
                            .set("y", round(y + 1.0))
                            .set("width", round(cell_width - 2.0))
                            .set("height", CELL - 2.0)
                            .set("rx", 2),
                    );
                    let middle = at + cell_width / 2.0;
                    self.add(centred(
                        "letter",
                        middle,
                        y + 16.5,
                        kind.letter().to_string(),
                    ));
                    cells.push((middle, *kind, *to));
                }
                Cell::Gap { text } => {
                    let middle = at + gap_width(text) / 2.0;
                    self.add(centred("gap", middle, y + 16.5, format!("⋯ {text} ⋯")));
                }
                Cell::Space => {}
            }
            at += cell_width_of(cell, cell_width);
        }
        Place { x, width, cells }
    }

    fn wire(&mut self, kind: Kind, from: (f64, f64), to: (f64, f64)) {
        let bend = (to.1 - from.1) * 0.55;
        let curve = format!(
            "M{} {}C{} {} {} {} {} {}",
            round(from.0),
            round(from.1 + 1.0),
            round(from.0),
            round(from.1 + bend),
            round(to.0),
            round(to.1 - bend),
            round(to.0),
            round(to.1 - 4.0)
        );
        self.add(
            Path::new()
                .set("class", format!("wire w-{}", kind.class()))
                .set("d", curve),
        );
        let head = format!("M{} {}l-3.5 -6h7z", round(to.0), round(to.1 + 1.0),);
        self.add(Path::new().set("class", kind.class()).set("d", head));
    }

    /// Draws frames below the cells that lead to them, and the wires: from tables' cells, which end at `below`, and
    /// from entries above, which end at `above`.
    fn frames(
        &mut self,
        array: &Array,
        uppers: &[Place],
        strips: &[Place],
        (above, below): (f64, f64),
    ) {
        let blocks = uppers.iter().flat_map(|place| {
            let cells = place
                .cells
                .iter()
                .filter(|(_, kind, _)| *kind == Kind::Block);
            cells.map(move |(x, kind, to)| (*x, above, *kind, *to))
        });
        let pages = strips.iter().flat_map(|place| {
            place
                .cells
                .iter()
                .map(move |(x, kind, to)| (*x, below, *kind, *to))
        });
        let cells: Vec<_> = blocks.chain(pages).collect();
        // Where each would like to be: in the middle of what leads there.
        let mut wanted: Vec<(f64, usize)> = Vec::new();
        for index in 0..array.frames.len() {
            let xs: Vec<f64> = cells
                .iter()
                .filter(|cell| cell.3 == Some(index))
                .map(|cell| cell.0)
                .collect();
            if !xs.is_empty() {
                wanted.push((xs.iter().sum::<f64>() / xs.len() as f64, index));
            }
        }
        wanted.sort_by(|a, b| a.0.total_cmp(&b.0));
        let [width, height] = FRAME;
        let room = self.right - self.left;
        let step = (width + 8.0).min(room / wanted.len().max(1) as f64);
        let width = step - 8.0;
        let mut places: Vec<(f64, usize)> = Vec::new();
        for (x, index) in wanted {
            let least = places
                .last()
                .map_or(self.left + width / 2.0, |(last, _)| last + step);
            places.push((x.max(least), index));
        }
        // What was pushed out at the right pushes back.
        let mut most = self.right - width / 2.0;
        for (x, _) in places.iter_mut().rev() {
            *x = x.min(most);
            most = *x - step;
        }
        let y = self.y;
        for (x, index) in &places {
            for cell in cells.iter().filter(|cell| cell.3 == Some(*index)) {
                self.wire(cell.2, (cell.0, cell.1 + 1.0), (*x, y));
            }
        }
        for (x, index) in &places {
            let Some(frame) = array.frames.get(*index) else {
                continue;
            };
            self.add(
                Rectangle::new()
                    .set("class", frame.kind.class())
                    .set("x", round(x - width / 2.0))
                    .set("y", round(y))
                    .set("width", round(width))
                    .set("height", height)
                    .set("rx", 4),
            );
            self.add(centred("name", *x, y + 15.0, frame.kind.name()));
            self.add(centred("number", *x, y + 29.0, frame.label.clone()));
        }
        if !places.is_empty() {
            self.y = y + height + 10.0;
        }
    }

    fn legend(&mut self, legend: &[Counted], total: &str) {
        self.y += 8.0;
        self.add(Path::new().set("class", "rule").set(
            "d",
            format!("M{MARGIN} {}H{}", round(self.y), WIDTH - MARGIN),
        ));
        self.y += 12.0;
        let half = legend.len().div_ceil(2).max(1);
        for (index, line) in legend.iter().enumerate() {
            let x = MARGIN + (index / half) as f64 * (WIDTH - 2.0 * MARGIN) * 0.54;
            let y = self.y + (index % half) as f64 * 22.0;
            self.add(
                Rectangle::new()
                    .set("class", line.kind.class())
                    .set("x", round(x))
                    .set("y", round(y))
                    .set("width", 18)
                    .set("height", 16)
                    .set("rx", 2),
            );
            self.add(centred(
                "letter",
                x + 9.0,
                y + 12.5,
                line.kind.letter().to_string(),
            ));
            let count = line
                .count
                .map_or(String::new(), |count| format!("{} × ", number(Some(count))));
            self.add(text(
                "",
                x + 26.0,
                y + 12.5,
                format!("{count}{}", line.kind.about()),
            ));
        }
        self.y += half as f64 * 22.0 + 6.0;
        self.line("quiet", 14.0, total);
    }
}

/// How much room an array would like to have.
fn array_width(array: &Array) -> f64 {
    let row = |strips: &[Strip]| -> f64 {
        let widths = strips
            .iter()
            .map(|strip| strip_width(strip, CELL_WIDTH[0]) + BETWEEN);
        widths.sum::<f64>() - BETWEEN
    };
    let way = width_of(&array.way.join("  →  "));
    let title = width_of(&array.title) * 1.1;
    let frames = array.frames.len() as f64 * (FRAME[0] + 8.0);
    [way, title, row(&array.upper), row(&array.strips), frames]
        .into_iter()
        .fold(0.0, f64::max)
}

fn gap_width(text: &str) -> f64 {
    width_of(text) + 38.0
}

fn cell_width_of(cell: &Cell, cell_width: f64) -> f64 {
    match cell {
        Cell::One { .. } => cell_width,
        Cell::Gap { text } => gap_width(text),
        Cell::Space => 7.0,
    }
}

fn inner_width(strip: &Strip, cell_width: f64) -> f64 {
    strip
        .cells
        .iter()
        .map(|cell| cell_width_of(cell, cell_width))
        .sum()
}

/// With its label.
fn strip_width(strip: &Strip, cell_width: f64) -> f64 {
    inner_width(strip, cell_width).max(width_of(&strip.label))
}
