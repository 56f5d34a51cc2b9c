//! Parts that know no product: time, health, supervision, retries. A word like Jenkins has no place here.

pub mod alarm;
pub mod answer;
pub mod blocks;
pub mod clock;
pub mod crew;
pub mod health;
pub mod http1;
pub mod lenient;
pub mod listener;
pub mod raw;
pub mod retry;
pub mod spool;
pub mod supervise;
pub mod throttle;
