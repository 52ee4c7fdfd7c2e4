//! Makes random zone files. Takes a source of randomness, returns the text of a zone, which is valid in most cases.

use bailiwick_rules::testing::Random;

/// The zone's name.
pub(crate) const ORIGIN: &str = "z.example";
/// The file that some texts include.
pub(crate) const INCLUDED: &str = "more.zone";

/// A zone in two files.
pub(crate) struct ZoneText {
    pub(crate) main: Vec<u8>,
    pub(crate) included: Vec<u8>,
}

impl ZoneText {
    pub(crate) fn shown(&self) -> String {
        format!(
            "{}--- {INCLUDED}\n{}",
            self.main.escape_ascii().to_string().replace("\\n", "\n"),
            self.included.escape_ascii()
        )
    }
}

/// An SOA, an NS and a few records.
pub(crate) fn zone(random: &mut Random) -> ZoneText {
    let mut text = Text { random, out: Vec::new(), owners: 0 };
    text.head();
    for _ in 0..1 + text.random.below(3) {
        text.entry();
    }
    let main = std::mem::take(&mut text.out);
    text.out.extend_from_slice(b"$TTL 77\n");
    text.record();
    ZoneText { main, included: text.out }
}

struct Text<'r> {
    random: &'r mut Random,
    out: Vec<u8>,
    /// So many owners were written: each is another, so that no two records of one type differ in their TTL.
    owners: usize,
}

impl Text<'_> {
    fn write(&mut self, text: &str) {
        self.out.extend_from_slice(text.as_bytes());
    }

    fn pick(&mut self, choices: &[&str]) -> String {
        (*self.random.pick(choices)).to_owned()
    }

    fn head(&mut self) {
        if self.random.chance(20) {
            self.write("; a comment with caf\u{e9} (and \"quotes\n");
        }
        let ttl = self.pick(&["$TTL 3600\n", "$TTL 1h\n", "$ttl 1H30M\n", "$TTL 1w2d ; long\n"]);
        self.write(&ttl);
        let soa = self.pick(&[
            "@ SOA ns1 hostmaster 1 7200 900 1209600 60\n",
            "@\tIN\tSOA\tns1 hostmaster ( 1 ; serial\n\t2h ; refresh\n\n\t15m\n2w )\n",
            "z.example. 300 IN SOA ns1.z.example. host\\.master.z.example. (\n1 2H 15M 2W 1M)\n",
            "@ IN 1d SOA (ns1) hostmaster 4294967295 1h 1m 1w 1s\n",
        ]);
        let soa = if soa.contains("2w )\n") { soa.replace("2w )", "2w 60 )") } else { soa };
        self.write(&soa);
        self.write("@ NS ns1\nns1 A 192.0.2.53\n");
    }

    fn entry(&mut self) {
        match self.random.below(12) {
            0 => {
                let origin = self.pick(&[
                    "$ORIGIN sub.z.example.\n",
                    "$ORIGIN sub\n",
                    "$ORIGIN z.example.\n",
                    "$origin a.b.z.example. ; here\n",
                ]);
                self.write(&origin);
                self.record();
            }
            1 => {
                let include = self.pick(&[
                    "$INCLUDE more.zone\n",
                    "$INCLUDE more.zone inner.z.example.\n",
                    "$INCLUDE more.zone inner\n",
                    "$include more.zone in.z.example.\n",
                ]);
                self.write(&include);
            }
            2 => {
                self.write("$TTL 2m\n");
                self.record();
            }
            3 => {
                self.record();
                self.write("\n   \n\t; nothing\n");
            }
            _ => self.record(),
        }
    }

    /// `owner [TTL] [class] type data`.
    fn record(&mut self) {
        self.owners += 1;
        let number = self.owners;
        let owner = match self.random.below(8) {
            0 => format!("o{number}.z.example."),
            1 => format!("a\\.b{number}"),
            2 => format!("\\097\\032{number}"),
            3 => format!("*.w{number}"),
            4 => format!("_s{number}._tcp"),
            5 => format!("x.y.z{number}"),
            _ => format!("n{number}"),
        };
        self.write(&owner);
        let (rtype, items) = data(self.random);
        self.fields(rtype, &items);
        // A second record of another type at the same owner.
        if self.random.chance(15) && rtype != "CNAME" {
            self.fields(
                "TYPE65280",
                &[b"\\#".to_vec(), b"2".to_vec(), b"ab CD".to_vec()]
                    .map(|item| item.into_iter().filter(|octet| *octet != b' ').collect()),
            );
        }
    }

    fn fields(&mut self, rtype: &str, items: &[Vec<u8>]) {
        let ttl = self.pick(&["60", "1h", "2d3h", "0"]);
        let class = self.pick(&["IN", "in", "CLASS1"]);
        let middle = match self.random.below(5) {
            0 => format!(" {ttl} {class} "),
            1 => format!("\t{class} {ttl}\t"),
            2 => format!(" {class} "),
            3 => format!("  {ttl} "),
            _ => "\t \t".to_owned(),
        };
        self.write(&middle);
        let rtype = if self.random.chance(15) { rtype.to_lowercase() } else { rtype.to_owned() };
        self.write(&rtype);
        let parentheses = self.random.chance(25);
        if parentheses {
            self.write(" (");
        }
        for item in items {
            let space = if parentheses {
                self.pick(&[" ", "\n\t", " ; note (\n ", "\n"])
            } else {
                self.pick(&[" ", "\t", "  "])
            };
            self.write(&space);
            self.out.extend_from_slice(item);
        }
        if parentheses {
            self.write(" )");
        }
        let end = self.pick(&["\n", " ; end\n", "\t\n", "\r\n"]);
        self.write(&end);
    }
}

/// A string with or without quotes.
fn string(random: &mut Random) -> Vec<u8> {
    let quoted = random.chance(70);
    let mut text = Vec::new();
    for _ in 0..random.below(10) {
        let piece: &[u8] = match random.below(16) {
            0 => b"\\\"",
            1 => b"\\\\",
            2 => b"\\195\\169",
            3 => "\u{e9}".as_bytes(),
            4 => b"\xe9",
            5 if quoted => b" ",
            6 if quoted => b"\t",
            7 if quoted => b";",
            8 if quoted => b"(a)",
            9 => b"\\;",
            10 => b"\\000",
            11 => b"\\ ",
            12 => b"\x7f",
            _ => random.pick::<&[u8]>(&[b"abc", b"=", b"v1", b"@", b"$x", b"'"]),
        };
        text.extend_from_slice(piece);
    }
    if quoted {
        return [b"\"", &text[..], b"\""].concat();
    }
    if text.is_empty() { b"plain".to_vec() } else { text }
}

fn host(random: &mut Random) -> String {
    let hosts = ["a", "mail.z.example.", "@", ".", "x.y", "\\097b", "a\\.b.example.", "*.w", "_x._y"];
    (*random.pick(&hosts)).to_owned()
}

fn hex(random: &mut Random, octets: usize) -> String {
    (0..octets).map(|_| format!("{:02x}", random.below(256))).collect()
}

const BASE64: [&str; 4] = ["AAAA", "AQIDBAUGBwg=", "q83v", "/+8="];

/// A type and the items of its data.
#[expect(clippy::too_many_lines, reason = "a table of types")]
fn data(random: &mut Random) -> (&'static str, Vec<Vec<u8>>) {
    let number = |random: &mut Random| random.below(65_536).to_string();
    let small = |random: &mut Random| random.below(256).to_string();
    let words = |text: String| text.split(' ').map(|word| word.as_bytes().to_vec()).collect::<Vec<_>>();
    let base64 = |random: &mut Random| (*random.pick(&BASE64)).to_owned();
    let kind = *random.pick(&TYPES);
    let text = match kind {
        "TXT" | "SPF" | "NINFO" | "AVC" | "RESINFO" | "WALLET" => {
            return (kind, (0..=random.below(3)).map(|_| string(random)).collect());
        }
        "HINFO" => return (kind, vec![string(random), string(random)]),
        "CAA" => {
            let tag = (*random.pick(&["issue", "issuewild", "iodef"])).as_bytes().to_vec();
            return (kind, vec![b"0".to_vec(), tag, string(random)]);
        }
        "URI" => {
            let (priority, weight) = (number(random).into_bytes(), number(random).into_bytes());
            let target = string(random).into_iter().filter(|octet| *octet != b'"');
            let quoted = [b'"', b'x'].into_iter().chain(target).chain([b'"']).collect();
            return (kind, vec![priority, weight, quoted]);
        }
        "NAPTR" => {
            let flags = (*random.pick(&["\"u\"", "\"s\"", "\"\"", "U"])).as_bytes().to_vec();
            let service = b"\"E2U+sip\"".to_vec();
            let (order, preference) = (number(random).into_bytes(), number(random).into_bytes());
            return (kind, vec![order, preference, flags, service, b"\"\"".to_vec(), host(random).into_bytes()]);
        }
        "X25" => "\"311061700956\"".to_owned(),
        "ISDN" => (*random.pick(&["\"150862028003217\" \"004\"", "150862028003217"])).to_owned(),
        "GPOS" => "\"-32.6882\" \"116.8652\" \"10.0\"".to_owned(),
        "A" => format!("192.0.2.{}", random.below(256)),
        "AAAA" => (*random.pick(&["2001:db8::1", "::", "2001:DB8:0:0::ffff", "::ffff:192.0.2.1"])).to_owned(),
        "PTR" | "MB" | "MG" | "MR" | "DNAME" | "NSAP-PTR" | "CNAME" => host(random),
        "MINFO" | "RP" | "TALINK" => format!("{} {}", host(random), host(random)),
        "MX" | "AFSDB" | "RT" | "KX" | "LP" => format!("{} {}", number(random), host(random)),
        "PX" => format!("{} {} {}", number(random), host(random), host(random)),
        "SRV" => format!("{} {} {} {}", number(random), number(random), number(random), host(random)),
        "DS" | "CDS" => {
            let (kind, octets) = *random.pick(&[("1", 20), ("2", 32), ("4", 48)]);
            let digest = hex(random, octets);
            let algorithm = *random.pick(&["8", "13", "ECDSAP256SHA256", "ED25519"]);
            let (first, second) = digest.split_at(octets / 2);
            format!("{} {algorithm} {kind} {first} {second}", number(random))
        }
        "DNSKEY" | "CDNSKEY" => {
            let algorithm = *random.pick(&["13", "ECDSAP256SHA256"]);
            format!(
                "257 3 {algorithm} mdsswUyr3DPW132mOi8V9xESWE8jTo0dxCjjnopKl+GqJxpVXckHAeF+KkxLbxIL \
                fDLUT0rAK9iUzy1L53eKGQ=="
            )
        }
        "RKEY" => format!("0 {} {} {}", small(random), "1", base64(random)),
        "KEY" => format!("256 3 13 {}", base64(random)),
        "CERT" => {
            let certificate = random.pick(&["PKIX", "6", "PGP", "URI", "OID"]);
            format!("{certificate} {} {} {}", number(random), random.pick(&["0", "8", "RSASHA256"]), base64(random))
        }
        "SSHFP" => format!("4 2 {} {}", hex(random, 16), hex(random, 16)),
        "TLSA" | "SMIMEA" => format!("3 1 1 {} {}", hex(random, 10), hex(random, 22)),
        "OPENPGPKEY" | "DHCID" => format!("{} {}", random.pick(&["AAAA", "q83v"]), base64(random)),
        "ZONEMD" => format!("1 1 1 {}", hex(random, 48)),
        "CSYNC" => format!("66 3 {}", random.pick(&["A NS AAAA", "NS", "TXT TYPE1234 MX"])),
        "NSEC" => format!("{} {}", host(random), random.pick(&["A MX RRSIG NSEC TYPE1234", "NS", "CAA RRSIG"])),
        "NSEC3PARAM" => format!("1 0 {} {}", random.below(100), random.pick(&["-", "aabbccdd"])),
        "EUI48" => "00-00-5e-00-53-2A".to_owned(),
        "EUI64" => "00-00-5e-ef-10-00-00-2a".to_owned(),
        "NID" | "L64" => format!("{} {}", number(random), random.pick(&["0014:4fff:ff20:ee64", "2001:0DB8:1140:1000"])),
        "L32" => format!("{} 10.1.2.0", number(random)),
        "NSAP" => "0x47.0005.80.005a00.0000.0001.e133.ffffff000162.00".to_owned(),
        "LOC" => {
            let latitude = random
                .pick(&["52 22 23.000 N", "42 21 54 N", "10 S", "90 0 0.000 N", "31 30.0 S"])
                .replace("30.0", "30");
            let longitude = *random.pick(&["4 53 32.000 E", "71 06 18 W", "180 W", "0 0 0.001 E"]);
            let rest = *random.pick(&[
                "-2.00m",
                "0m",
                "-24m 30m",
                "10 1m 2m 3m",
                "-100000.00m",
                "42849672.95m 0.05m 99.99m 9000000.00m",
                "5.5",
            ]);
            format!("{latitude} {longitude} {rest}")
        }
        "APL" => (*random.pick(&[
            "1:192.168.32.0/21",
            "1:192.168.32.0/21 !1:192.168.38.0/28",
            "2:2001:db8::/32 1:0.0.0.0/0",
            "1:224.0.0.0/4 2:FF00:0:0:0:0:0:0:0/8",
        ]))
        .to_owned(),
        "IPSECKEY" => (*random.pick(&[
            "10 1 2 192.0.2.38 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==",
            "10 0 2 . AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==",
            "10 3 2 mygateway.example.com. AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==",
            "10 2 2 2001:0DB8:0:8002::2000:1 AQNRU3mG7TVTO2BkR47usntb102uFJtugbo6BSGvgqt4AQ==",
        ]))
        .to_owned(),
        "AMTRELAY" => {
            (*random.pick(&["10 0 1 203.0.113.15", "128 1 3 amtrelays.example.com.", "10 0 2 2001:db8::15", "1 1 0 ."]))
                .to_owned()
        }
        "HIP" => "2 200100107B1A74DF365639CC39F1D578 \
         AwEAAbdxyhNuSutc5EMzxTs9LBPCIkOFH8cIvM4p9+LrV4e19WzK00+CI6zBCQTdtWsuxKbWIy87UOoJTwkUs7lB\
         u+Upr1gsNrut79ryra+bSRGQb1slImA8YVJyuIDsj7kwzG7jnERNqnWxZ48AWkskmdHaVDP4BcelrTI3rMXdXF5D \
         rvs1.example.com."
            .to_owned(),
        "HTTPS" | "SVCB" => (*random.pick(&[
            "0 a.example.",
            "1 . alpn=h2,h3 port=8443",
            "1 . ipv4hint=192.0.2.1",
            "2 @ mandatory=alpn alpn=\"h2\" no-default-alpn",
        ]))
        .to_owned(),
        "TYPE65280" => (*random.pick(&["\\# 4 0a000001", "\\# 0", "\\# 4 0A00 0001"])).to_owned(),
        "TYPE1" => "\\# 4 c0000201".to_owned(),
        "DSYNC" => format!("{} NOTIFY 5359 {}", random.pick(&["CDS", "CSYNC"]), host(random)),
        "WKS" => "192.0.2.1 6 25 80 443".to_owned(),
        other => unreachable!("{other}"),
    };
    (kind, words(text))
}

const TYPES: [&str; 62] = [
    "TXT",
    "TXT",
    "TXT",
    "SPF",
    "NINFO",
    "AVC",
    "RESINFO",
    "WALLET",
    "HINFO",
    "CAA",
    "CAA",
    "URI",
    "NAPTR",
    "X25",
    "ISDN",
    "GPOS",
    "A",
    "AAAA",
    "PTR",
    "MB",
    "MG",
    "MR",
    "DNAME",
    "NSAP-PTR",
    "CNAME",
    "MINFO",
    "RP",
    "TALINK",
    "MX",
    "AFSDB",
    "RT",
    "KX",
    "LP",
    "PX",
    "SRV",
    "DS",
    "CDS",
    "DNSKEY",
    "CDNSKEY",
    "RKEY",
    "KEY",
    "CERT",
    "SSHFP",
    "TLSA",
    "SMIMEA",
    "OPENPGPKEY",
    "DHCID",
    "ZONEMD",
    "CSYNC",
    "NSEC3PARAM",
    "EUI48",
    "EUI64",
    "NID",
    "L64",
    "L32",
    "NSAP",
    "LOC",
    "APL",
    "IPSECKEY",
    "AMTRELAY",
    "HIP",
    "HTTPS",
];
