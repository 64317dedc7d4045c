//! Names as WorkflowMetal makes them, as the NIF hands them to the core.

use registry_core::name::{Buffer, Encoder, NameError};

/// `{WorkflowMetal.Task.Task, {i1, i2, i3, i4, i5}}`
pub fn integers(buffer: &mut Buffer, number: u32) -> Result<&[u8], NameError> {
    let mut encoder = Encoder::new(buffer);
    encoder.tuple(2)?;
    encoder.word(0x0004_560B)?;
    encoder.tuple(5)?;
    for id in [number % 10, number % 97, number, number + 1, number % 7] {
        encoder.word(id << 4 | 0xF)?;
    }
    Ok(encoder.finish())
}

/// `{:case, number}`
pub fn case(buffer: &mut Buffer, number: u32) -> Result<&[u8], NameError> {
    let mut encoder = Encoder::new(buffer);
    encoder.tuple(2)?;
    encoder.word(0x0004_560B)?;
    encoder.word(number << 4 | 0xF)?;
    Ok(encoder.finish())
}

/// Four UUIDs as text.
pub fn texts(number: u32) -> [String; 4] {
    [number % 10, number % 97, number, number + 1].map(|id| {
        let bits = u128::from(id).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        let text = format!("{bits:032x}");
        let groups = [
            &text[..8],
            &text[8..12],
            &text[12..16],
            &text[16..20],
            &text[20..],
        ];
        groups.join("-")
    })
}

/// `{WorkflowMetal.Task.Task, {uuid, uuid, uuid, uuid}}`
pub fn uuids<'a>(buffer: &'a mut Buffer, texts: &[String; 4]) -> Result<&'a [u8], NameError> {
    let mut encoder = Encoder::new(buffer);
    encoder.tuple(2)?;
    encoder.word(0x0004_560B)?;
    encoder.tuple(4)?;
    for text in texts {
        encoder.binary(text.as_bytes())?;
    }
    Ok(encoder.finish())
}
