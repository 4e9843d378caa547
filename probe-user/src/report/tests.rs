use std::time::Instant;

use super::*;

fn run(format: Format, width: Option<usize>, colour: bool) -> String {
    let mut out = Vec::new();
    let mut reporter = Reporter::new(format, width, colour, &mut out).time_zone(TimeZone::UTC);
    for connection in samples::all() {
        reporter.connection(&connection).unwrap();
    }
    reporter.summary(&samples::summary()).unwrap();
    drop(reporter);
    String::from_utf8(out).unwrap()
}

#[test]
fn one_header_one_line_each_and_the_summary_last() {
    let text = run(Format::Table, None, false);
    assert_eq!(text.matches("TIME").count(), 1);
    assert_eq!(text.lines().position(str::is_empty), Some(16));
    let text = run(Format::Wide, None, false);
    assert_eq!(text.lines().position(str::is_empty), Some(15));
    let text = run(Format::Json, None, false);
    assert_eq!(text.lines().count(), 16);
    assert!(text.lines().last().unwrap().starts_with(r#"{"event":"summary","#));
}

/// No header over nothing: an empty run is its summary.
#[test]
fn nothing_is_written_before_the_first_record() {
    for format in Format::ALL {
        let mut out = Vec::new();
        Reporter::new(format, None, false, &mut out).flush().unwrap();
        assert!(out.is_empty());
    }
}

/// Counts the writes that reach it, and fails from a given one on.
struct Pipe {
    writes: usize,
    fails_from: usize,
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.writes += 1;
        if self.writes > self.fails_from {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn one_write_a_batch_and_bounded_in_between() {
    for format in Format::ALL {
        let mut pipe = Pipe {
            writes: 0,
            fails_from: usize::MAX,
        };
        let mut reporter = Reporter::new(format, None, false, &mut pipe);
        for _ in 0..100 {
            reporter.connection(&samples::incident()).unwrap();
        }
        reporter.flush().unwrap();
        reporter.flush().unwrap();
        for _ in 0..10_000 {
            reporter.connection(&samples::incident()).unwrap();
        }
        assert!(reporter.buffer.capacity() <= FULL + (8 << 10));
        drop(reporter);
        assert!(pipe.writes > 10, "{format:?}: {}", pipe.writes);
        assert!(pipe.writes < 200, "{format:?}: {}", pipe.writes);
    }
}

#[test]
fn a_closed_pipe_is_an_error_to_the_caller() {
    let mut reporter = Reporter::new(
        Format::Json,
        None,
        false,
        Pipe {
            writes: 0,
            fails_from: 0,
        },
    );
    reporter.connection(&samples::incident()).unwrap();
    assert_eq!(reporter.flush().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    assert_eq!(
        reporter.summary(&samples::summary()).unwrap_err().kind(),
        io::ErrorKind::BrokenPipe
    );
}

/// `cargo test -p probe-user look -- --ignored --nocapture`
#[test]
#[ignore = "to look at"]
fn look() {
    for width in [100, 120, 160] {
        println!(
            "{}",
            (0..width)
                .map(|i| if i % 10 == 9 { '|' } else { '.' })
                .collect::<String>()
        );
        println!(
            "{}",
            run(Format::Table, Some(width), std::env::var_os("COLOUR").is_some())
        );
    }
    println!("{}", run(Format::Wide, None, false));
    println!("{}", run(Format::Json, None, false));
}

/// `cargo test --release -p probe-user cost -- --ignored --nocapture`
#[test]
#[ignore = "a measurement"]
fn cost() {
    const ROUNDS: usize = 100_000;
    for (what, records) in [
        ("incident", vec![samples::incident()]),
        ("15 kinds", samples::all()),
    ] {
        for (format, width) in [
            (Format::Table, 100),
            (Format::Table, 160),
            (Format::Wide, 140),
            (Format::Json, 140),
        ] {
            for colour in [false, true] {
                let mut reporter = Reporter::new(format, Some(width), colour, io::sink());
                let start = Instant::now();
                for record in records.iter().cycle().take(ROUNDS) {
                    reporter.connection(record).unwrap();
                }
                let each = start.elapsed().as_nanos() as usize / ROUNDS;
                println!(
                    "{what:9} {:5} at {width}, colour {colour:5}: {each} ns a record",
                    format.name()
                );
            }
        }
        let mut cadences = crate::model::Cadences::default();
        let mut records = records;
        let start = Instant::now();
        for index in 0..ROUNDS {
            let index = index % records.len();
            records[index].time += std::time::Duration::from_millis(331);
            let cadence = cadences.seen(&records[index]);
            records[index].cadence = Some(cadence);
        }
        println!(
            "{what:9} cadence: {} ns a record",
            start.elapsed().as_nanos() as usize / ROUNDS
        );
    }
}
