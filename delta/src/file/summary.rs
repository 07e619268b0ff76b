use crate::{
    Result, Spool, Totals,
    error::{Error, Object},
    recipe::read_frame,
};

/// What a delta is made of, by its records alone: all frames are read and verified, no base is needed.
pub fn summarise(spool: &Spool) -> Result<Totals> {
    let mut totals = Totals::default();
    let mut position = 0;
    for number in 0..spool.index().frames.len() as u32 {
        let frame = read_frame(&spool.read(number)?)?;
        if frame.position != position {
            return Err(Error::damaged(Object::Frame(number), 8, "it does not begin where the frame before it ends"));
        }
        // Reading has seen to it that no sum of lengths overflows.
        position += frame.records.iter().map(|record| record.len_bytes()).sum::<u64>();
        totals.add(&frame);
    }
    if position != spool.index().image_len_bytes {
        let reason = "the recipes do not make as many bytes as the image has";
        return Err(Error::damaged(Object::FrameIndex, 8, reason));
    }
    Ok(totals)
}
