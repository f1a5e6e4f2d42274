//! The picture of a run: one panel a figure, one under the other, over the same time.

use std::path::Path;

use anyhow::Context;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};

use super::Sample;
use super::node::MIB;

type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// One line of a panel.
struct Line {
    name: &'static str,
    color: RGBColor,
    of: fn(&Sample) -> f64,
}

struct Panel {
    title: &'static str,
    lines: &'static [Line],
}

const BLUE_LINE: RGBColor = RGBColor(31, 119, 180);
const RED_LINE: RGBColor = RGBColor(214, 39, 40);
const SIZE: (u32, u32) = (1200, 1400);

const PANELS: [Panel; 5] = [
    Panel {
        title: "operations a second",
        lines: &[Line {
            name: "done",
            color: BLUE_LINE,
            of: |sample| sample.second.done as f64,
        }],
    },
    Panel {
        title: "time of an operation, ms",
        lines: &[
            Line {
                name: "p99",
                color: RED_LINE,
                of: |sample| sample.second.p99_us / 1e3,
            },
            Line {
                name: "p50",
                color: BLUE_LINE,
                of: |sample| sample.second.p50_us / 1e3,
            },
        ],
    },
    Panel {
        title: "memory, MiB",
        lines: &[Line {
            name: "resident",
            color: BLUE_LINE,
            of: |sample| sample.resident as f64 / MIB as f64,
        }],
    },
    Panel {
        title: "files in the data folder",
        lines: &[Line {
            name: "files",
            color: BLUE_LINE,
            of: |sample| sample.files as f64,
        }],
    },
    Panel {
        title: "on disk, MiB",
        lines: &[Line {
            name: "data folder",
            color: BLUE_LINE,
            of: |sample| sample.disk_bytes as f64 / MIB as f64,
        }],
    },
];

pub fn draw(samples: &[Sample], path: &Path) -> anyhow::Result<()> {
    // A font of our own: machines that run this need not have any.
    register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
        .map_err(|_| anyhow::anyhow!("the font is not one"))?;
    let root = BitMapBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let areas = root.split_evenly((PANELS.len(), 1));
    for (panel, area) in PANELS.iter().zip(&areas) {
        draw_panel(panel, samples, area)?;
    }
    root.present()
        .with_context(|| format!("cannot write {}", path.display()))
}

fn draw_panel(panel: &Panel, samples: &[Sample], area: &Area<'_>) -> anyhow::Result<()> {
    // Minutes, unless the run was short.
    let end_s = samples.last().map_or(1.0, |sample| sample.second.at_s);
    let (unit, unit_s) = if end_s > 600.0 {
        ("minutes", 60.0)
    } else {
        ("seconds", 1.0)
    };
    let values = panel.lines.iter().flat_map(|line| samples.iter().map(line.of));
    let top = values.fold(0.0, f64::max) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(panel.title, ("sans-serif", 22))
        .margin(10)
        .margin_right(30)
        .x_label_area_size(42)
        .y_label_area_size(80)
        .build_cartesian_2d(0.0..end_s / unit_s, 0.0..top.max(1.0))?;
    chart
        .configure_mesh()
        .x_desc(unit)
        .label_style(("sans-serif", 15))
        .axis_desc_style(("sans-serif", 16))
        .light_line_style(TRANSPARENT)
        .y_labels(6)
        .y_label_formatter(&|value| label(*value))
        .x_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for line in panel.lines {
        let points = samples
            .iter()
            .map(|sample| (sample.second.at_s / unit_s, (line.of)(sample)));
        let drawn = chart.draw_series(LineSeries::new(points, line.color.stroke_width(1)))?;
        let color = line.color;
        drawn
            .label(line.name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    if panel.lines.len() > 1 {
        chart
            .configure_series_labels()
            .label_font(("sans-serif", 15))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .position(SeriesLabelPosition::UpperRight)
            .draw()?;
    }
    Ok(())
}

fn label(value: f64) -> String {
    match value {
        value if value >= 1000.0 => kv_storage::bench::thousands(value),
        value if value >= 10.0 || value == 0.0 => format!("{value:.0}"),
        value => format!("{value:.1}"),
    }
}
