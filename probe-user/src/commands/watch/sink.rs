//! Where connections go: what `watch` writes, or what else a caller makes of them.

use std::io::{self, Write};

use anyhow::{Context, Result};

use crate::{
    model::{Connection, Summary, unlisted_time::UnlistedTime},
    recording::write::Recording,
    report::Reporter,
};

/// Takes what was found out.
pub trait Sink {
    /// Takes a connection.
    ///
    /// # Errors
    /// Those that are to end the run.
    fn connection(&mut self, connection: &Connection) -> io::Result<()>;

    /// Takes a connection that is not shown, and kept all the same.
    ///
    /// # Errors
    /// Those that are to end the run.
    fn unshown(&mut self, _: &Connection) -> io::Result<()> {
        Ok(())
    }

    /// Takes a time in which connections were not handed over one by one.
    ///
    /// # Errors
    /// Those that are to end the run.
    fn unlisted(&mut self, time: &UnlistedTime) -> io::Result<()>;

    /// After a batch of connections, also where there was none.
    ///
    /// # Errors
    /// Those that are to end the run.
    fn flush(&mut self) -> Result<()>;

    /// The end.
    ///
    /// # Errors
    /// The selected ones.
    fn summary(&mut self, summary: &Summary) -> Result<()>;
}

/// The report, and the recording where one is made.
pub struct Output<W: Write> {
    reporter: Reporter<W>,
    recorder: Option<Reporter<Recording>>,
    unrecorded: Option<io::Error>,
}

impl<W: Write> Output<W> {
    pub fn new(reporter: Reporter<W>, recorder: Option<Reporter<Recording>>) -> Self {
        Self {
            reporter,
            recorder,
            unrecorded: None,
        }
    }
}

impl<W: Write> Sink for Output<W> {
    fn connection(&mut self, connection: &Connection) -> io::Result<()> {
        self.unshown(connection)?;
        self.reporter.connection(connection)
    }

    fn unshown(&mut self, connection: &Connection) -> io::Result<()> {
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = recorder.connection(connection)
        {
            self.unrecorded.get_or_insert(error);
        }
        Ok(())
    }

    fn unlisted(&mut self, time: &UnlistedTime) -> io::Result<()> {
        if let Some(recorder) = &mut self.recorder
            && let Err(error) = recorder.unlisted(time)
        {
            self.unrecorded.get_or_insert(error);
        }
        // Standard error has it while it happens, and the summary at the end.
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if let Some(recorder) = &mut self.recorder {
            let result = self.unrecorded.take().map_or(Ok(()), Err);
            result
                .and_then(|()| recorder.flush())
                .context("can't write the recording")?;
        }
        Ok(self.reporter.flush()?)
    }

    fn summary(&mut self, summary: &Summary) -> Result<()> {
        self.reporter.summary(summary)?;
        if let Some(recorder) = &mut self.recorder {
            recorder.summary(summary).context("can't write the recording")?;
        }
        Ok(())
    }
}
