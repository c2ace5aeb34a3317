//! One client API over two transports; informers, work queue, leader election, event recorder.
