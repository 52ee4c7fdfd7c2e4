//! Tests of metrics pages. `pages/` holds pages as engines write them: names, labels and types are those of the
//! engines' source code, and the pages also have series that aren't read.

use proptest::prelude::*;

use super::*;

const VLLM: &str = include_str!("pages/vllm.txt");
const SGLANG: &str = include_str!("pages/sglang.txt");

fn read(of: &MetricsOf, text: &str) -> Result<EngineReading, PageError> {
    let mut page = EnginePage::new(of);
    page.push(text.as_bytes())?;
    page.finish(false)
}

/// Reads a page. Returns waiting and running requests in thousandths, use of the cache in millionths, engines, and
/// progress.
fn values(of: &MetricsOf, text: &str) -> (Option<u64>, Option<u64>, Option<u32>, u32, Option<u64>) {
    let reading = read(of, text).unwrap();
    (reading.waiting, reading.running, reading.kv.map(|kv| kv.0), reading.engines, reading.progress)
}

#[test]
fn vllm_is_read_with_its_engines_added_up() {
    let of = &MetricsOf::Vllm;
    let expected = (Some(5_000), Some(60_000), Some(600_000), 2, Some(80_000));
    assert_eq!(values(of, VLLM), expected, "4 + 1 requests wait for room; 3 deferred requests aren't counted");
    assert_eq!(read(of, VLLM).unwrap().load(None), Some(Ratio(750_000)), "cache 0.6 of 0.8; 5 of 10 waiting is less");
    assert_eq!(read(of, VLLM).unwrap().load(Some(65)), Some(Ratio::ONE), "65 requests are in flight");
}

#[test]
fn the_series_names_of_vllm_0_8_are_read() {
    let expected = (Some(0), Some(12_000), Some(400_000), 1, Some(7_120));
    assert_eq!(values(&MetricsOf::Vllm, include_str!("pages/vllm-0.8.txt")), expected);
}

#[test]
fn a_page_with_old_and_new_series_names_is_counted_once() {
    let both = format!("{VLLM}vllm:gpu_cache_usage_perc{{engine=\"0\",model_name=\"org/chat-large\"}} 0.99\n");
    assert_eq!(values(&MetricsOf::Vllm, &both).2, Some(600_000));
}

#[test]
fn sglang_counts_one_engine_for_each_data_parallel_rank() {
    let expected = (Some(4_000), Some(30_000), Some(320_000), 2, Some(5_000));
    assert_eq!(values(&MetricsOf::Sglang, SGLANG), expected, "tensor-parallel ranks count the same requests");
}

#[test]
fn a_tgi_page_is_read_though_it_reports_no_cache() {
    let reading = read(&MetricsOf::Tgi, include_str!("pages/tgi.txt")).unwrap();
    let expected = (Some(4_000), Some(16_000), None, 1, Some(61_300));
    assert_eq!(values(&MetricsOf::Tgi, include_str!("pages/tgi.txt")), expected);
    assert_eq!((reading.load(None), reading.load(Some(20))), (Some(Ratio(800_000)), Some(Ratio::ONE)));
}

#[test]
fn pages_of_current_trtllm_and_of_version_1_0_are_read() {
    let now = values(&MetricsOf::TrtLlm, include_str!("pages/trtllm.txt"));
    assert_eq!(now, (Some(1_000), Some(24_000), Some(500_000), 1, Some(812)));
    let before = read(&MetricsOf::TrtLlm, include_str!("pages/trtllm-1.0.txt")).unwrap();
    assert_eq!((before.waiting, before.running, before.load(Some(10))), (None, None, Some(Ratio(250_000))));
}

#[test]
fn dynamo_counts_waiting_requests_as_in_flight_too() {
    let page = include_str!("pages/dynamo.txt");
    assert_eq!(values(&MetricsOf::Dynamo, page), (Some(3_000), Some(18_000), Some(400_000), 2, Some(70_211)));
    assert_eq!(read(&MetricsOf::Dynamo, page).unwrap().in_flight(), Some(18_000));
    let renamed = page.replace("kvstats_gpu_cache", "gpu_cache");
    assert_eq!(values(&MetricsOf::Dynamo, &renamed).2, Some(400_000));
}

#[test]
fn pages_of_other_programs_are_read_by_the_series_that_the_rules_name() {
    let labels = |value: &str| BTreeMap::from([("request_type".to_owned(), value.to_owned())]);
    let of_type = |value| Some(Series { name: "nv_requests".to_owned(), labels: labels(value) });
    let named = crate::rules::NamedSeries {
        waiting: of_type("waiting"),
        running: of_type("scheduled"),
        kv: Some(plain("nv_kv")),
        ..Default::default()
    };
    let of = MetricsOf::Prometheus(Box::new(named));
    let page = "nv_requests{request_type=\"waiting\",model=\"a\"} 2.5\nnv_requests{request_type=\"scheduled\"} 7\n\
                nv_requests{request_type=\"max\"} 512\nnv_kv 0.1\n";
    assert_eq!(values(&of, page), (Some(2_500), Some(7_000), Some(100_000), 1, None));
}

#[test]
fn a_missing_or_invalid_series_gives_no_load_instead_of_load_0() {
    let of = &MetricsOf::Vllm;
    for page in ["", "# TYPE vllm:num_requests_waiting gauge\n", "<html>\n<body>vllm:num_requests_waiting</body>\n"] {
        assert_eq!(read(of, page).unwrap().load(Some(10)), None, "{page}");
    }
    for bad in ["NaN", "+Inf", "-Inf", "-1"] {
        let page =
            format!("vllm:num_requests_waiting{{engine=\"0\"}} 0\nvllm:num_requests_waiting{{engine=\"1\"}} {bad}\n");
        assert_eq!(read(of, &page).unwrap().waiting, None, "{bad}");
    }
    let ranks = "sglang:num_queue_reqs{tp_rank=\"0\"} NaN\nsglang:num_queue_reqs{tp_rank=\"1\"} 1\n";
    assert_eq!(read(&MetricsOf::Sglang, ranks).unwrap().waiting, None);
    assert_eq!(read(of, "vllm:kv_cache_usage_perc 62\n").unwrap().kv, None, "62 isn't between 0 and 1");
    assert_eq!(read(of, "vllm:num_requests_running 5\n").unwrap().load(None), None, "no capacity is known");
    assert_eq!(read(of, "vllm:num_requests_running 1e300\n").unwrap().load(Some(1)), Some(Ratio(u32::MAX)));
}

#[test]
fn a_cut_page_or_a_broken_line_is_an_error() {
    let half = &VLLM[..VLLM.len() / 2];
    assert!(!half.ends_with('\n'), "the page has to be cut within a line");
    assert_eq!(read(&MetricsOf::Vllm, half), Err(PageError::Cut));
    let broken = VLLM.replace("vllm:num_requests_waiting{engine=\"1\"", "vllm:num_requests_waiting{engine=\"1");
    assert!(matches!(read(&MetricsOf::Vllm, &broken), Err(PageError::Line(_))));
}

proptest! {
    /// 256 random cases.
    #[test]
    fn the_load_never_falls_with_more_waiting_requests_and_is_at_least_the_use_of_the_cache(
        waiting in prop::option::of(0..1_000_000_u64), running in prop::option::of(0..1_000_000_u64),
        kv in prop::option::of(0..=1_000_000_u32), engines in 1..64_u32, capacity in prop::option::of(1..10_000_u32),
        more in 0..1_000_000_u64
    ) {
        let kv = kv.map(Ratio);
        let reading = EngineReading { waiting, running, kv, engines, ..EngineReading::default() };
        let busier = EngineReading { waiting: waiting.map(|waiting| waiting + more), ..reading };
        let load = reading.load(capacity);
        prop_assert!(busier.load(capacity) >= load);
        prop_assert!(load >= reading.load(None));
        prop_assert!(load >= kv);
        prop_assert_eq!(load.is_some(), waiting.is_some() || kv.is_some() || (running.is_some() && capacity.is_some()));
    }

    /// 256 random cases.
    #[test]
    fn the_order_of_samples_does_not_matter(seed in any::<u64>()) {
        let mut lines: Vec<&str> = VLLM.lines().collect();
        lines.sort_by_key(|line| line.bytes().fold(seed, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        }));
        let page = format!("{}\n", lines.join("\n"));
        prop_assert_eq!(read(&MetricsOf::Vllm, &page), read(&MetricsOf::Vllm, VLLM));
    }
}
