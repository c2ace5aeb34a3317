//! Quantities: what is written is read as the same number.
#![no_main]

use api::quantity::Quantity;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(quantity) = Quantity::parse(text) else { return };
    let (whole, milli) = (quantity.value(), quantity.milli_value());
    let written = quantity.to_string();
    let again = Quantity::parse(&written).expect("what was written is sound");
    assert_eq!((again.value(), again.milli_value()), (whole, milli), "{text} {written}");
    // A number of bytes may be written without a suffix, and is a plain number from then on.
    let plain = again.to_string();
    let third = Quantity::parse(&plain).expect("what was written is sound");
    assert_eq!(third.to_string(), plain);
});
