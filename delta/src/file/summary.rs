use crate::{
    Extent, Result, Spool, Totals,
    error::{Error, Object},
    image::normalise,
    recipe::{Frame, PartSource, read_frame},
};

/// What a delta is made of, by its records alone: all frames are read and verified, no base is needed.
pub fn summarise(spool: &Spool) -> Result<Totals> {
    let mut totals = Totals::default();
    walk(spool, |frame| totals.add(&frame))?;
    Ok(totals)
}

/// Where in the new image the bytes lie that travel in a delta, compressed or not: all that neither is zeros nor comes from a base as it is.
pub fn sent_extents(spool: &Spool) -> Result<Vec<Extent>> {
    let mut sent = Vec::new();
    walk(spool, |frame| {
        let mut record_at = frame.position;
        for record in &frame.records {
            let mut part_at = record_at;
            for part in record.parts() {
                let end = part_at + u64::from(part.len_bytes);
                if !matches!(part.source, PartSource::Zero | PartSource::Copy(_)) {
                    sent.push(Extent::new(part_at, end));
                }
                part_at = end;
            }
            record_at += record.len_bytes();
        }
    })?;
    Ok(normalise(sent))
}

/// Reads all frames, in order.
fn walk(spool: &Spool, mut each: impl FnMut(Frame)) -> Result<()> {
    let mut position = 0;
    for number in 0..spool.index().frames.len() as u32 {
        let frame = read_frame(&spool.read(number)?)?;
        if frame.position != position {
            return Err(Error::damaged(Object::Frame(number), 8, "it does not begin where the frame before it ends"));
        }
        // Reading has seen to it that no sum of lengths overflows.
        position += frame.records.iter().map(|record| record.len_bytes()).sum::<u64>();
        each(frame);
    }
    if position != spool.index().image_len_bytes {
        let reason = "the recipes do not make as many bytes as the image has";
        return Err(Error::damaged(Object::FrameIndex, 8, reason));
    }
    Ok(())
}
