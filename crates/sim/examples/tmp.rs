//! x
fn main() {
    if std::env::var("L").is_ok() {
        tracing_subscriber::fmt()
            .with_max_level(tracing_subscriber::filter::LevelFilter::TRACE)
            .without_time()
            .with_ansi(false)
            .with_writer(std::io::stdout)
            .init();
    }
    let a: Vec<u64> = std::env::args().skip(1).map(|x| x.parse().unwrap()).collect();
    let mut bad = 0;
    for seed in a[0]..a[0] + a[1] {
        let o = apogee_sim::history::run(seed);
        if a.len() > 2 {
            for e in &o.entries {
                println!("{e}");
            }
        }
        if let Some(c) = o.complaint() {
            bad += 1;
            if bad < 6 || a.len() > 2 {
                let c: String = c.chars().take(3000).collect();
                println!("{c}\n");
            } else {
                println!("seed {} {}", seed, c.lines().nth(1).unwrap());
            }
        }
    }
    println!("bad {bad}");
}
