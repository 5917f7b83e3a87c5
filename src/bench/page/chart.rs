//! A chart of a few lines, as SVG.

use std::fmt::Write;

use super::escape;
use crate::bench::outcome::short;

const WIDTH: f64 = 480.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 56.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 38.0;
/// A line has no more dots to point at than this: where there are more, every so many-th has one.
const DOTS_MAX: usize = 120;

/// What a direction shows.
#[derive(Clone, Copy, Debug)]
pub struct Axis {
    /// What it is, or its unit.
    pub label: &'static str,
    /// How values are spread.
    pub scale: Scale,
}

/// How values are spread along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// Evenly, from zero.
    Linear,
    /// By their logarithm.
    Log,
    /// Percentiles by how much is left: 90, 99 and 99.9 are equally far apart.
    Percentile,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is.
    pub name: String,
    /// (x, y) in the order of x.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart<'a> {
    /// What it shows.
    pub title: &'a str,
    /// From left to right.
    pub x: Axis,
    /// From bottom to top.
    pub y: Axis,
    /// At most three: there are as many colours.
    pub lines: Vec<Line>,
}

impl Chart<'_> {
    /// The chart.
    pub fn svg(&self) -> String {
        let values = |of: fn(&(f64, f64)) -> f64| {
            self.lines.iter().flat_map(move |line| line.points.iter().map(of))
        };
        let x = Span::new(self.x.scale, values(|point| point.0), LEFT, WIDTH - RIGHT);
        let y = Span::new(self.y.scale, values(|point| point.1), HEIGHT - BOTTOM, TOP);
        let title = escape(self.title);
        let mut svg = format!(
            "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\" \
             xmlns=\"http://www.w3.org/2000/svg\">\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"14\">{title}</text>\n"
        );
        self.push_grid(&mut svg, &x, &y);
        self.push_legend(&mut svg);
        for (number, line) in self.lines.iter().enumerate() {
            self.push_line(&mut svg, number, line, &x, &y);
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn push_grid(&self, svg: &mut String, x: &Span, y: &Span) {
        for value in y.ticks() {
            let at = y.at(value);
            push(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
                    WIDTH - RIGHT,
                    LEFT - 6.0,
                    at + 4.0,
                    tick_text(value)
                ),
            );
        }
        let bottom = HEIGHT - BOTTOM;
        for value in x.ticks() {
            let at = x.at(value);
            push(
                svg,
                format_args!(
                    "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{}\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
                    bottom + 4.0,
                    bottom + 17.0,
                    tick_text(value)
                ),
            );
        }
        push(
            svg,
            format_args!(
                "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n",
                WIDTH - RIGHT,
                HEIGHT - 6.0,
                escape(self.x.label),
                LEFT - 6.0,
                TOP - 12.0,
                escape(self.y.label)
            ),
        );
    }

    fn push_legend(&self, svg: &mut String) {
        let mut at = LEFT;
        for (number, line) in self.lines.iter().enumerate() {
            push(
                svg,
                format_args!(
                    "<rect class=\"line-{number}\" x=\"{at}\" y=\"24\" width=\"10\" height=\"3\"/>\
                 <text x=\"{}\" y=\"30\">{}</text>\n",
                    at + 14.0,
                    escape(&line.name)
                ),
            );
            // About the width of a character.
            at += 30.0 + 6.2 * f64::from(u32::try_from(line.name.len()).unwrap_or(u32::MAX));
        }
    }

    fn push_line(&self, svg: &mut String, number: usize, line: &Line, x: &Span, y: &Span) {
        let place = |point: &(f64, f64)| (x.at(point.0), y.at(point.1));
        push(svg, format_args!("<polyline class=\"line line-{number}\" points=\""));
        for point in &line.points {
            let (x, y) = place(point);
            push(svg, format_args!("{x:.1},{y:.1} "));
        }
        svg.push_str("\"/>\n");
        for point in line.points.iter().step_by(line.points.len().div_ceil(DOTS_MAX)) {
            let (at_x, at_y) = place(point);
            push(
                svg,
                format_args!(
                    "<circle class=\"dot line-{number}\" cx=\"{at_x:.1}\" cy=\"{at_y:.1}\" r=\"4\">\
                 <title>{}: {} at {} {}</title></circle>\n",
                    escape(&line.name),
                    short(point.1),
                    percent_text(point.0),
                    escape(self.x.label)
                ),
            );
        }
    }
}

fn push(svg: &mut String, text: std::fmt::Arguments<'_>) {
    svg.write_fmt(text).expect("a string takes everything");
}

/// A percentile needs all its nines; for other numbers they do no harm.
fn percent_text(value: f64) -> String {
    let text = format!("{value:.5}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn tick_text(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{}M", percent_text(value / 1e6)),
        size if size >= 1e4 => format!("{}k", percent_text(value / 1e3)),
        _ => percent_text(value),
    }
}

/// Values along an axis, and where they are drawn.
struct Span {
    scale: Scale,
    /// Of the scaled values.
    low: f64,
    high: f64,
    from: f64,
    to: f64,
}

impl Span {
    fn new(scale: Scale, values: impl Iterator<Item = f64>, from: f64, to: f64) -> Span {
        let scaled = values.map(|value| scaled(scale, value));
        let (mut low, mut high) = scaled.fold((f64::INFINITY, f64::NEG_INFINITY), |span, value| {
            (span.0.min(value), span.1.max(value))
        });
        match scale {
            Scale::Linear => low = 0.0,
            Scale::Log => (low, high) = (low.floor(), high.ceil()),
            Scale::Percentile => low = 0.0,
        }
        if high <= low {
            high = low + 1.0;
        }
        Span { scale, low, high, from, to }
    }

    fn at(&self, value: f64) -> f64 {
        let share = (scaled(self.scale, value) - self.low) / (self.high - self.low);
        self.from + share.clamp(0.0, 1.0) * (self.to - self.from)
    }

    /// Round values within the span.
    fn ticks(&self) -> Vec<f64> {
        match self.scale {
            Scale::Linear => {
                let step = step(self.high / 5.0);
                (0..=10)
                    .map(|number| f64::from(number) * step)
                    .filter(|value| *value <= self.high * 1.0001)
                    .collect()
            }
            Scale::Log => powers(self.low, self.high)
                .flat_map(|power| [1.0, 3.0].map(|digit| digit * power))
                .filter(|value| value.log10() <= self.high + 1e-9)
                .collect(),
            Scale::Percentile => [0.0, 50.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999]
                .into_iter()
                .filter(|value| scaled(self.scale, *value) <= self.high)
                .collect(),
        }
    }
}

/// The highest percentile that is told from 100.
const REST_MIN: f64 = 1e-7;

fn scaled(scale: Scale, value: f64) -> f64 {
    match scale {
        Scale::Linear => value,
        // Nothing is below a µs, in ms.
        Scale::Log => value.max(0.001).log10(),
        Scale::Percentile => -(1.0 - value / 100.0).max(REST_MIN).log10(),
    }
}

fn powers(low: f64, high: f64) -> impl Iterator<Item = f64> {
    (-3..=9).filter(move |power| (low..=high).contains(&f64::from(*power))).map(|p| 10_f64.powi(p))
}

/// 1, 2 or 5 times a power of ten, at least so much.
fn step(least: f64) -> f64 {
    let power = 10_f64.powf(least.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|digit| digit * power)
        .into_iter()
        .find(|step| *step >= least * 0.999)
        .unwrap_or(power * 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round() {
        let span = |scale, values: &[f64]| Span::new(scale, values.iter().copied(), 0.0, 100.0);
        assert_eq!(span(Scale::Linear, &[3.0, 47.0]).ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        let log = span(Scale::Log, &[0.2, 2.0]).ticks();
        assert_eq!(
            log.into_iter().map(tick_text).collect::<Vec<_>>(),
            ["0.1", "0.3", "1", "3", "10"]
        );
        assert_eq!(span(Scale::Percentile, &[0.0, 99.95]).ticks(), [0.0, 50.0, 90.0, 99.0, 99.9]);
    }

    #[test]
    fn values_are_placed_by_their_scale() {
        let log = Span::new(Scale::Log, [1.0, 100.0].into_iter(), 0.0, 100.0);
        assert!((log.at(10.0) - 50.0).abs() < 1e-9);
        let percent = Span::new(Scale::Percentile, [0.0, 99.0].into_iter(), 0.0, 100.0);
        assert!((percent.at(90.0) - 50.0).abs() < 1e-9);
        let flat = Span::new(Scale::Linear, [0.0].into_iter(), 0.0, 100.0);
        assert_eq!(flat.at(0.0), 0.0);
    }
}
