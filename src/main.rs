//! The program.

fn main(){}
