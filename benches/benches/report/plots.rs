//! The figures as SVG: nothing but shapes and text, in whatever sans-serif font the reader has.

use figures::{Case, Change, Contender, Counted, Figures, Frames, Op, Operation, linux};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::error::Error;
use std::path::Path;

type Done = Result<(), Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (1000, 520);

/// Told apart by those who see colours differently, too (Okabe and Ito's).
const COLOURS: [RGBColor; 8] = [
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(130, 130, 130),
    RGBColor(0, 0, 0),
];

/// Writes all plots into `folder`.
pub(crate) fn draw(figures: &Figures, folder: &Path) -> Done {
    let file = folder.join("entries.svg");
    let area = SVGBackend::new(&file, SIZE).into_drawing_area();
    entries(figures, &area)?;
    if !figures.instructions.is_empty() {
        let file = folder.join("instructions.svg");
        let area = SVGBackend::new(&file, SIZE).into_drawing_area();
        instructions(figures, &area)?;
    }
    let file = folder.join("sizes.svg");
    let area = SVGBackend::new(&file, SIZE).into_drawing_area();
    sizes(figures, &area)
}

/// Bars that stand together, and what stands below them.
struct Group {
    name: String,
    bars: Vec<f64>,
}

/// Groups of bars on a logarithmic scale, `names` for the bars of each.
fn bars(
    area: &Area<'_>,
    (title, unit): (&str, &str),
    names: &[(&str, RGBColor)],
    groups: &[Group],
    line: Option<(f64, &str)>,
) -> Done {
    area.fill(&WHITE)?;
    let all = groups.iter().flat_map(|group| &group.bars).copied();
    let least = all
        .clone()
        .chain(line.map(|line| line.0))
        .fold(f64::MAX, f64::min);
    let most = all.fold(0.0, f64::max);
    // Whole decades, and room for the legend.
    let low = 10_f64.powf(least.log10().floor());
    let high = 10_f64.powf(most.log10().ceil() + 0.9);
    let width = names.len() as f64 + 1.0;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(50)
        .y_label_area_size(78)
        .build_cartesian_2d(0.0..width * groups.len() as f64, (low..high).log_scale())?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(WHITE)
        .y_desc(unit)
        .y_label_formatter(&|value| number(*value))
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .draw()?;
    for (index, (name, colour)) in names.iter().enumerate() {
        let colour = *colour;
        let bars = groups.iter().enumerate().map(|(number, group)| {
            let left = number as f64 * width + 0.5 + index as f64;
            let corners = [(left + 0.05, low), (left + 0.95, group.bars[index])];
            Rectangle::new(corners, colour.filled())
        });
        chart
            .draw_series(bars)?
            .label(*name)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
    }
    let label = |text: String, at: (f64, f64), size, align| {
        Text::new(
            text,
            at,
            ("sans-serif", size).into_text_style(area).pos(align),
        )
    };
    use plotters::style::text_anchor::{HPos, Pos, VPos};
    for (place, group) in groups.iter().enumerate() {
        for (index, bar) in group.bars.iter().enumerate() {
            let at = (place as f64 * width + 1.0 + index as f64, *bar * 1.08);
            let above = Pos::new(HPos::Center, VPos::Bottom);
            chart.draw_series([label(number(*bar), at, 10, above)])?;
        }
    }
    if let Some((value, name)) = line {
        let ends = [(0.0, value), (width * groups.len() as f64, value)];
        chart
            .draw_series(LineSeries::new(ends, BLACK.stroke_width(1)))?
            .label(name)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], BLACK));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 14))
        .draw()?;
    // Below the axis, where charts have no coordinates.
    let (from, _) = chart.plotting_area().get_pixel_range();
    let step = f64::from(from.end - from.start) / groups.len() as f64;
    for (place, group) in groups.iter().enumerate() {
        let x = f64::from(from.start) + (place as f64 + 0.5) * step;
        let style = ("sans-serif", 14)
            .into_text_style(area)
            .pos(Pos::new(HPos::Center, VPos::Top));
        for (line, text) in group.name.split(", ").enumerate() {
            let at = (x as i32, SIZE.1 as i32 - 52 + 16 * line as i32);
            area.draw(&Text::new(text.to_owned(), at, style.clone()))?;
        }
    }
    area.present()?;
    Ok(())
}

fn entries(figures: &Figures, area: &Area<'_>) -> Done {
    let names: Vec<_> = Contender::ALL.iter().map(|name| name.name()).collect();
    let names: Vec<_> = names.into_iter().zip(COLOURS).collect();
    let columns = Case::ALL
        .iter()
        .flat_map(|case| Op::ALL.iter().map(move |op| (*case, *op)));
    let groups = columns.map(|(case, op)| Group {
        name: format!("{op}, {case}: {}", case.meaning()),
        bars: Contender::ALL
            .iter()
            .filter_map(|name| figures.row(*name, case, op))
            .map(|row| row.ns_per_entry)
            .collect(),
    });
    let groups: Vec<Group> = groups.collect();
    let title = "Writing and clearing 262144 page-table entries";
    let memset = (figures.memset_ns, "memset of the same bytes");
    bars(area, (title, "ns per entry"), &names, &groups, Some(memset))
}

fn instructions(figures: &Figures, area: &Area<'_>) -> Done {
    let names = [
        ("online", COLOURS[0]),
        ("online, Linux 7.3", COLOURS[2]),
        ("offline", COLOURS[5]),
        ("offline, Linux 7.3", COLOURS[3]),
    ];
    // Those of shuffled frames are in the table.
    let shown = figures.instructions.iter();
    let shown = shown.filter(|of| of.frames == Frames::InOrder);
    let groups = shown.filter_map(|of| {
        let linux = linux(of.counted.case.name())?;
        Some(Group {
            name: of
                .counted
                .to_string()
                .replace(", shared tables", ", shared"),
            bars: vec![
                of.online_per_gib,
                linux.online_per_gib,
                of.offline_per_gib,
                linux.offline_per_gib,
            ],
        })
    });
    let groups: Vec<Group> = groups.collect();
    let title = "Instructions for each GiB that comes online and goes offline";
    bars(area, (title, "instructions per GiB"), &names, &groups, None)
}

/// What one line of the plot of sizes is of.
fn series(of: &Operation) -> String {
    let counted = Counted {
        case: of.case,
        tails: of.tails,
        tables: of.tables,
        piece: of.piece,
    };
    counted.to_string()
}

fn sizes(figures: &Figures, area: &Area<'_>) -> Done {
    area.fill(&WHITE)?;
    let is_shown = |of: &&Operation| !of.cold && of.operation == Change::Online;
    let shown: Vec<&Operation> = figures.operations.iter().filter(is_shown).collect();
    let milliseconds = |of: &Operation| of.ns / 1e6;
    let least = shown
        .iter()
        .map(|of| milliseconds(of))
        .fold(f64::MAX, f64::min);
    let most = shown.iter().map(|of| milliseconds(of)).fold(0.0, f64::max);
    let largest = shown.iter().map(|of| of.gib).max().unwrap_or(1);
    let low = 10_f64.powf(least.log10().floor());
    let high = 10_f64.powf(most.log10().ceil());
    let mut chart = ChartBuilder::on(area)
        .caption("Memory online, by how much it is", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(46)
        .y_label_area_size(78)
        .build_cartesian_2d(
            (0.8..largest as f64 * 1.3).log_scale().base(2.0),
            (low..high).log_scale(),
        )?;
    chart
        .configure_mesh()
        .light_line_style(WHITE)
        .x_desc("memory")
        .y_desc("ms, median")
        .x_label_formatter(&|gib| memory(*gib))
        .y_label_formatter(&|value| number(*value))
        .label_style(("sans-serif", 14))
        .axis_desc_style(("sans-serif", 15))
        .draw()?;
    let mut names: Vec<String> = Vec::new();
    for of in &shown {
        if !names.contains(&series(of)) {
            names.push(series(of));
        }
    }
    for (index, name) in names.into_iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()];
        let points = shown.iter().filter(|of| series(of) == name);
        let points: Vec<_> = points.map(|of| (of.gib as f64, milliseconds(of))).collect();
        chart.draw_series(points.iter().map(|at| Circle::new(*at, 3, colour.filled())))?;
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 14, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.9))
        .border_style(RGBColor(200, 200, 200))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    Ok(())
}

fn memory(gib: f64) -> String {
    match gib {
        gib if gib >= 1024.0 => format!("{:.0} TiB", gib / 1024.0),
        gib => format!("{gib:.0} GiB"),
    }
}

/// With two or three digits that say something.
fn number(value: f64) -> String {
    let (value, unit) = match value {
        value if value >= 999_500.0 => (value / 1e6, "M"),
        value if value >= 999.5 => (value / 1e3, "k"),
        value => (value, ""),
    };
    let text = match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value if value >= 0.1 => format!("{value:.2}"),
        value => format!("{value:.3}"),
    };
    let text = match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.'),
        false => &text,
    };
    format!("{text}{unit}")
}
