//! Settings from their text, with what is wrong in words.

use tracing_subscriber::EnvFilter;

use super::{LogFormat, MIB};

pub(super) fn bytes(text: &str, range: &std::ops::RangeInclusive<u64>) -> Result<u64, String> {
    let units = [("KiB", 1024), ("MiB", MIB), ("GiB", 1024 * MIB), ("", 1)];
    let parsed = units.into_iter().find_map(|(unit, factor)| {
        let number = text.strip_suffix(unit)?.trim_end();
        Some(number.parse::<u64>().ok()?.checked_mul(factor))
    });
    let bytes = parsed
        .flatten()
        .ok_or("write a number of bytes, such as 67108864 or 64MiB")?;
    if range.contains(&bytes) {
        return Ok(bytes);
    }
    if *range.end() == u64::MAX {
        return Err(format!("it must be at least {} bytes", range.start()));
    }
    Err(format!("it must be {} to {} bytes", range.start(), range.end()))
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("write text or json".to_owned()),
    }
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("{error}; write directives such as info or kv_storage=debug,warn"))
}
