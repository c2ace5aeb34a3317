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
    assert_eq!(again.to_string(), written);
});
