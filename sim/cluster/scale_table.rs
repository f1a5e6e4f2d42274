//! The rows of `scale` as a table in Markdown and, with the feature `plot`, as a picture.

use super::child::{SCALE, run_apart};
use super::runs::setting;
use super::scale::Row;

/// Sizes of clusters in the table.
const SIZES: [u64; 4] = [3, 10, 30, 100];

/// What is told of a row: its name, its unit, and how it is written.
type Line = (&'static str, fn(&Row) -> String);

const LINES: [Line; 9] = [
    ("all know of a node that joins, after", |row| seconds(row.join_s)),
    ("no other sees a dead node alive, after", |row| seconds(row.death_s)),
    ("gossip that each node sends, idle", |row| {
        kilobytes(row.gossip_bytes) + "/s"
    }),
    ("its longest datagram", |row| kilobytes(row.longest_datagram as f64)),
    ("gossip and connections of each pair, idle", |row| {
        kilobytes(row.pair_bytes) + "/s"
    }),
    ("slots of the fullest node, of the mean", |row| {
        format!("{:.2}", row.fullest_slots)
    }),
    ("values of the fullest node, of the mean", |row| {
        format!("{:.2}", row.fullest_ops)
    }),
    ("between nodes for one quorum add", |row| {
        format!("{:.1} messages, {}", row.add_messages, kilobytes(row.add_bytes))
    }),
    ("between nodes for one quorum get", |row| {
        format!("{:.1} messages, {}", row.get_messages, kilobytes(row.get_bytes))
    }),
];

fn seconds(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

fn kilobytes(bytes: f64) -> String {
    format!("{:.1} KB", bytes / 1000.0)
}

fn markdown(rows: &[Row]) -> String {
    let line = |name: &str, cells: Vec<String>| format!("| {name} | {} |\n", cells.join(" | "));
    let mut table = line("nodes", rows.iter().map(|row| row.nodes.to_string()).collect());
    table += &line("---", vec!["---:".to_owned(); rows.len()]);
    for (name, cell) in LINES {
        table += &line(name, rows.iter().map(cell).collect());
    }
    table
}

/// `just sim-scale`: the table, and with the feature `plot` its picture. `KV_SIM_SIZES=3,10` takes other sizes.
#[test]
#[ignore = "takes minutes"]
fn scale_table() {
    let sizes = std::env::var("KV_SIM_SIZES").ok();
    let sizes = sizes.map(|text| text.split(',').filter_map(|size| size.trim().parse().ok()).collect());
    let mut rows = Vec::new();
    for nodes in sizes.unwrap_or_else(|| SIZES.to_vec()) {
        let report = run_apart(&format!("{SCALE}{nodes}"), setting("KV_SIM_SEED").unwrap_or(0), None);
        assert!(report.problems.is_empty(), "{nodes} nodes: {:?}", report.problems);
        let (simulated_s, cpu_s) = (report.simulated_us as f64 / 1e6, report.cpu_ms as f64 / 1e3);
        println!("{nodes} nodes: {simulated_s:.0} simulated seconds in {cpu_s:.0} s of processor time");
        rows.extend(report.row);
    }
    println!("\n{}", markdown(&rows));
    #[cfg(feature = "plot")]
    {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/sim-scale.png");
        draw(&rows, &path).expect("the picture can be drawn");
        println!("{}", path.display());
    }
}

#[cfg(feature = "plot")]
use plot::draw;

#[cfg(feature = "plot")]
mod plot {
    use std::path::Path;

    use plotters::coord::Shift;
    use plotters::prelude::*;
    use plotters::style::{FontStyle, register_font};

    use super::Row;

    type Result = std::result::Result<(), Box<dyn std::error::Error>>;
    type Curve = (&'static str, RGBColor, fn(&Row) -> f64);

    const BLUE_LINE: RGBColor = RGBColor(31, 119, 180);
    const RED_LINE: RGBColor = RGBColor(214, 39, 40);
    const SIZE: (u32, u32) = (1200, 800);

    const PANELS: [(&str, &[Curve]); 4] = [
        (
            "until all know, seconds",
            &[
                ("of a join", BLUE_LINE, |row| row.join_s),
                ("of a death", RED_LINE, |row| row.death_s),
            ],
        ),
        (
            "idle, KB/s",
            &[
                ("gossip that each node sends", BLUE_LINE, |row| row.gossip_bytes / 1e3),
                ("all, of each pair of nodes", RED_LINE, |row| row.pair_bytes / 1e3),
            ],
        ),
        (
            "fullest node, of the mean",
            &[
                ("slots", BLUE_LINE, |row| row.fullest_slots),
                ("values", RED_LINE, |row| row.fullest_ops),
            ],
        ),
        (
            "messages between nodes for one request at quorum",
            &[
                ("add", BLUE_LINE, |row| row.add_messages),
                ("get", RED_LINE, |row| row.get_messages),
            ],
        ),
    ];

    pub fn draw(rows: &[Row], path: &Path) -> Result {
        // A font of our own: machines that run this need not have any.
        register_font("sans-serif", FontStyle::Normal, epaint_default_fonts::UBUNTU_LIGHT)
            .map_err(|_| "the font is not one")?;
        let root = BitMapBackend::new(path, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        for ((title, curves), area) in PANELS.iter().zip(root.split_evenly((2, 2))) {
            draw_panel(title, curves, rows, &area)?;
        }
        root.present()?;
        Ok(())
    }

    fn draw_panel(title: &str, curves: &[Curve], rows: &[Row], area: &DrawingArea<BitMapBackend<'_>, Shift>) -> Result {
        let most_nodes = rows.iter().map(|row| row.nodes).max().unwrap_or(10) as f64;
        let values = curves.iter().flat_map(|(_, _, of)| rows.iter().map(of));
        let top = values.fold(0.0, f64::max) * 1.25;
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 22))
            .margin(10)
            .margin_right(30)
            .x_label_area_size(42)
            .y_label_area_size(60)
            .build_cartesian_2d((2.0..most_nodes * 1.2).log_scale(), 0.0..top.max(1.0))?;
        chart
            .configure_mesh()
            .x_desc("nodes")
            .label_style(("sans-serif", 15))
            .axis_desc_style(("sans-serif", 16))
            .light_line_style(TRANSPARENT)
            .y_labels(6)
            .x_label_formatter(&|value| match value.round() as u64 {
                nodes @ (3 | 5 | 10 | 20 | 30 | 50 | 100) => nodes.to_string(),
                // They would run into each other.
                _ => String::new(),
            })
            .draw()?;
        for (name, color, of) in curves {
            let (points, color) = (rows.iter().map(|row| (row.nodes as f64, of(row))), *color);
            chart.draw_series(points.clone().map(|point| Circle::new(point, 4, color.filled())))?;
            let drawn = chart.draw_series(LineSeries::new(points, color.stroke_width(1)))?;
            drawn
                .label(*name)
                .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], color.stroke_width(2)));
        }
        chart
            .configure_series_labels()
            .label_font(("sans-serif", 15))
            .background_style(WHITE.mix(0.8))
            .border_style(BLACK.mix(0.3))
            .position(SeriesLabelPosition::UpperLeft)
            .draw()?;
        Ok(())
    }
}
