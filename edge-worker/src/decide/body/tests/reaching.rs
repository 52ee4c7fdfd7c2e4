//! Tests of what a body may make the model host fetch, by a URL or by a path on the host's disk.

use super::*;

const PART: &str = "/messages/0/content/0";
const PNG: &str = "iVBORw0KGgoAAAANSUhEUg==";

fn part(part: &str, allow: &[Allowance]) -> String {
    outcome(CHAT, &format!(r#""messages":[{{"role":"user","content":[{part}]}}]"#), allow)
}

#[test]
fn values_of_undocumented_media_keys_are_media_or_refused() {
    for (object, at) in [
        (r#"{"type":"image","path":"/mnt/a"}"#, "/path"),
        (r#"{"type":"image","source":"/mnt/a"}"#, "/source"),
        (r#"{"type":"image","url":"cats.png"}"#, "/url"),
        (r#"{"type":"image","base64":"data/images/cats"}"#, "/base64"),
        (r#"{"type":"image","foo":"cats"}"#, "/foo"),
        (r#"{"foo":["cats"],"type":"image"}"#, "/foo/0"),
        (r#"{"foo":{"bar":"cats"},"TYPE":"image","type":"image"}"#, "/foo/bar"),
        (r#"{"type":"image_url","image_url":{"path":"/mnt/a"}}"#, "/image_url/path"),
        (r#"{"type":"image_url","image_url":{"url":"data:,x","file":"a"}}"#, "/image_url/file"),
        (r#"{"type":"image_url","image_url":{"url":"data:,x","foo":"a"}}"#, "/image_url/foo"),
        (r#"{"type":"image_url","image_url":{"url":"data:,x","foo":{"bar":["a"]}}}"#, "/image_url/foo/bar/0"),
        (r#"{"type":"input_audio","input_audio":{"path":"a","format":"wav"}}"#, "/input_audio/path"),
        (r#"{"type":"file","file":{"path":"/etc/passwd"}}"#, "/file/path"),
        (r#"{"type":"file","file":{"filename":"a.pdf","location":"a"}}"#, "/file/location"),
        (r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"/mnt/a"}}"#, "/source/data"),
        (r#"{"type":"image","source":{"type":"text","type":"base64","data":"/mnt/a"}}"#, "/source/data"),
        (r#"{"type":"image","source":{"type":"text","path":"a"}}"#, "/source/path"),
        (
            r#"{"type":"document","source":{"type":"content","content":[{"type":"image","path":"a"}]}}"#,
            "/source/content/0/path",
        ),
        (r#"{"type":"text","text":"x","image_path":"a"}"#, "/image_path"),
        (r#"{"type":"text","text":"x","inlineData":{"data":"a"}}"#, "/inlineData/data"),
    ] {
        for allow in [&[][..], &[Allowance::UnknownFields], &[Allowance::RemoteUrls]] {
            assert_eq!(part(object, allow), format!("remote_url_not_allowed {PART}{at}"), "{object}");
        }
    }
    for (path, fields, at) in [
        (CHAT, r#""messages":[{"role":"user","content":"x","images":["/mnt/a"]}]"#, "/messages/0/images/0"),
        (CHAT, r#""messages":[{"role":"user","content":"x","image_path":"a"}]"#, "/messages/0/image_path"),
        (CHAT, r#""messages":[{"role":"user","content":"x","images":[{"path":"a"}]}]"#, "/messages/0/images/0/path"),
        ("/v1/images/edits", r#""prompt":"x","mask":{"image_url":"a"}"#, "/mask/image_url"),
        ("/v1/images/edits", r#""prompt":"x","images":[{"path":"a"}]"#, "/images/0/path"),
        ("/v1/images/edits", r#""prompt":"x","image":"data/images/cats""#, "/image"),
        ("/v1/embeddings", r#""input":[{"path":"a"}]"#, "/input/0/path"),
        (
            "/v1/responses",
            r#""input":[{"role":"user","content":[{"type":"input_image","path":"a"}]}]"#,
            "/input/0/content/0/path",
        ),
    ] {
        assert_eq!(outcome(path, fields, &[]), format!("remote_url_not_allowed {at}"), "{fields}");
    }
    for fields in
        [r#""image":"cats""#, r#""ref_audio":"a""#, r#""reference_images":["a"]"#, r#""opts":{"imagePath":"a"}"#]
    {
        assert!(outcome(CHAT, fields, &[Allowance::UnknownFields]).starts_with("remote_url_not_allowed"), "{fields}");
    }
    assert!(outcome(CHAT, r#""documents":[{"path":"a"}]"#, &[]).starts_with("remote_url_not_allowed"));
}

#[test]
fn media_as_hosts_document_it_passes() {
    for object in [
        r#"{"type":"image_url","image_url":{"url":"PNG","detail":"high","uuid":"u","max_dynamic_patch":4}}"#,
        r#"{"type":"image_url","image_url":"PNG","modalities":"multi-images","min_pixels":1}"#,
        r#"{"type":"image","image":"PNG"}"#,
        r#"{"type":"image","base64":"PNG"}"#,
        r#"{"type":"image","url":"data:image/png;base64,AAAA"}"#,
        r#"{"type":"image","source":{"type":"base64","media_type":"image/png","data":"PNG"},
            "cache_control":{"type":"ephemeral","ttl":"5m"}}"#,
        r#"{"type":"document","title":"t","context":"c","citations":{"enabled":true},
            "source":{"type":"text","media_type":"text/plain","data":"see https://a.example/"}}"#,
        r#"{"type":"document","source":{"type":"content","content":[{"type":"text","text":"/etc/passwd"}]}}"#,
        r#"{"type":"document_url","document_url":"data:application/pdf;base64,AAAA","document_name":"a.pdf"}"#,
        r#"{"type":"input_audio","input_audio":{"data":"SUQzBAAA","format":"mp3"}}"#,
        r#"{"type":"video","video":["PNG","PNG"],"fps":2}"#,
        r#"{"type":"video_url","video_url":{"url":"data:video/mp4;base64,AAAA","fps":1,"cache_control":{"type":"x"}},
            "video_metadata":{"start_offset":"1s"},"media_resolution":{"level":"LOW"}}"#,
        r#"{"type":"file","file":{"file_data":"JVBERi0xLjcK","filename":"a.pdf","format":"application/pdf"}}"#,
        r#"{"type":"file","file":{"file_data":"bmFtZTthbW91bnQKYWxpY2U7Nwo=","filename":"a.csv"}}"#,
        r#"{"type":"text","text":"x","agent":"planner","note":{"deep":["a word"]}}"#,
    ] {
        assert_eq!(part(&object.replace("PNG", PNG), &[]), "ok", "{object}");
    }
    let replayed = format!(
        r#""messages":[{{"role":"assistant","content":"x","images":[{{"type":"image_url","index":0,
        "image_url":{{"url":"data:image/png;base64,{PNG}"}}}}],"annotations":[{{"type":"file","file":{{"hash":"h",
        "name":"a.pdf","content":[{{"type":"text","text":"https://a"}}]}}}}]}}]"#
    );
    assert_eq!(outcome(CHAT, &replayed, &[]), "ok");
    assert_eq!(outcome("/v1/embeddings", &format!(r#""input":[{{"image":"{PNG}"}}]"#), &[]), "ok");
}

#[test]
fn where_remote_urls_are_allowed_only_the_public_internet_is() {
    let allow = &[Allowance::RemoteUrls, Allowance::UnknownFields];
    let image = |url: &str| part(&format!(r#"{{"type":"image_url","image_url":{{"url":"{url}"}}}}"#), allow);
    for url in ["https://a.example/b.png", "http://8.8.8.8:8080/x", "data:,x", PNG] {
        assert_eq!(image(url), "ok", "{url}");
        assert_eq!(outcome(CHAT, &format!(r#""x":["{url}"]"#), allow), "ok", "{url}");
    }
    for url in [
        "file:///etc/passwd",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00:ec2::254]/",
        "http://metadata.google.internal/",
        "http://localhost:8000/",
        "http://2130706433/",
        "http://0x7f.1/",
        "http://0177.0.0.1/",
        "http://10.0.0.1/",
        "https://collector/",
        "gs://bucket/x",
        "//a.example/x",
        "ftp://a.example/",
    ] {
        assert_eq!(image(url), format!("remote_url_not_allowed {PART}/image_url/url"), "{url}");
        let anywhere = format!(r#""x":["{url}"],"user":"u""#);
        assert_eq!(outcome(CHAT, &anywhere, allow), "remote_url_not_allowed /x/0", "{url}");
    }
    for path in ["./a.png", "/mnt/a", "cats", "data/images/cats"] {
        assert_eq!(image(path), format!("remote_url_not_allowed {PART}/image_url/url"), "{path}");
    }
    assert_eq!(outcome(CHAT, r#""user":"a.example:443""#, allow), "remote_url_not_allowed /user");
    let reference = r#""guided_json":{"$ref":"https://a.example/s.json"}"#;
    assert_eq!(outcome(CHAT, reference, allow), "ok");
    let reference = r#""guided_json":{"$ref":"http://localhost/s.json"}"#;
    assert_eq!(outcome(CHAT, reference, allow), "remote_url_not_allowed /guided_json/$ref");
}

#[test]
fn servers_and_masks_of_hosted_tools_are_public_too() {
    let hosted = |tool: &str| outcome("/v1/responses", &format!(r#""tools":[{tool}]"#), &[Allowance::HostedTools]);
    let server = |url: &str| hosted(&format!(r#"{{"type":"mcp","server_label":"x","server_url":"{url}"}}"#));
    assert_eq!(server("https://mcp.example/sse"), "ok");
    for url in
        ["http://169.254.169.254/", "http://localhost:8000/sse", "https://mcp/", "file:///etc/passwd", "10.0.0.1"]
    {
        assert_eq!(server(url), "remote_url_not_allowed /tools/0/server_url", "{url}");
    }
    let mask = |mask: &str| hosted(&format!(r#"{{"type":"image_generation","input_image_mask":{mask}}}"#));
    assert_eq!(mask(&format!(r#"{{"image_url":"data:image/png;base64,{PNG}"}}"#)), "ok");
    assert_eq!(mask(r#"{"path":"cats"}"#), "remote_url_not_allowed /tools/0/input_image_mask/path");
}

#[test]
fn words_of_the_api_may_not_be_paths() {
    for (path, fields, at) in [
        ("/v1/audio/speech", r#""input":"x","voice":"/mnt/voices/a.pt""#, "/voice"),
        ("/v1/audio/speech", r#""input":"x","voice":"alloy","response_format":"../x""#, "/response_format"),
        (CHAT, r#""reasoning_effort":"~/x""#, "/reasoning_effort"),
        (CHAT, r#""audio":{"voice":"./a.wav"}"#, "/audio/voice"),
    ] {
        assert_eq!(outcome(path, fields, &[]), format!("remote_url_not_allowed {at}"), "{fields}");
    }
    assert_eq!(outcome("/v1/audio/speech", r#""input":"/etc/passwd","voice":"af_heart""#, &[]), "ok");
}

#[test]
fn urls_in_the_history_are_not_judged() {
    let url = r#""url":"https://a.example/x""#;
    for item in [
        format!(r#"{{"type":"web_search_call","id":"ws_1","action":{{"type":"open_page",{url}}}}}"#),
        format!(r#"{{"type":"web_search_call","id":"ws_1","action":{{"type":"find_in_page","pattern":"y",{url}}}}}"#),
        format!(
            r#"{{"type":"web_search_call","id":"ws_1","action":{{"type":"search","queries":["x"],
                "sources":[{{"type":"url",{url}}},{{"type":"api","name":"oai-weather"}}]}}}}"#
        ),
        r#"{"type":"computer_call_output","call_id":"c","current_url":"https://a.example/","output":{
            "type":"computer_screenshot","image_url":"data:,x"}}"#
            .to_owned(),
    ] {
        assert_eq!(outcome("/v1/responses", &format!(r#""input":[{item}]"#), &[]), "ok", "{item}");
    }
    for (item, at) in [
        (
            r#"{"type":"web_search_call","action":{"type":"search","image_url":"https://a.example/"}}"#,
            "/action/image_url",
        ),
        (r#"{"type":"web_search_call","action":{"type":"open_page","url":{"path":"a"}}}"#, "/action/url/path"),
        (r#"{"type":"computer_call_output","output":{"image_url":"https://a.example/"}}"#, "/output/image_url"),
    ] {
        let outcome = outcome("/v1/responses", &format!(r#""input":[{item}]"#), &[]);
        assert_eq!(outcome, format!("remote_url_not_allowed /input/0{at}"), "{item}");
    }
}

#[test]
fn playlists_are_not_media() {
    for list in ["I0VYVE0zVQpodHRwOi8vMTY5LjI1NC4xNjkuMjU0L3gK", "data:audio/wav;base64,I0VYVE0zVQpodHRwOi8vYQ=="] {
        for (object, at) in [
            (
                format!(r#"{{"type":"input_audio","input_audio":{{"data":"{list}","format":"wav"}}}}"#),
                "/input_audio/data",
            ),
            (format!(r#"{{"type":"video_url","video_url":{{"url":"{list}"}}}}"#), "/video_url/url"),
        ] {
            for allow in [&[][..], &[Allowance::RemoteUrls, Allowance::UnknownFields]] {
                assert_eq!(part(&object, allow), format!("remote_url_not_allowed {PART}{at}"), "{object}");
            }
        }
    }
}

#[test]
fn answers_that_are_graded_may_have_a_schema() {
    let format = r#"{"type":"json_schema","json_schema":{"name":"n","schema":{"properties":{
        "url":{"default":"https://a.example/"},"model_id":{"type":"string"}}}}}"#;
    let grader = r#"{"type":"string_check","name":"a","input":"x","reference":"y","operation":"eq"}"#;
    let method = |format: &str| {
        format!(
            r#""method":{{"type":"reinforcement","reinforcement":{{"grader":{grader},"response_format":{format}}}}}"#
        )
    };
    let job = |format: &str| inspect("/v1/fine_tuning/jobs", &format!("{{\"model\":\"a\",{}}}", method(format)), &[]);
    assert!(job(format).is_ok());
    assert!(job(r#"{"type":"https://a.example/"}"#).is_err());
}
