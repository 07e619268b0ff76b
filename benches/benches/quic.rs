//! Bulk frames over our QUIC beside the same bytes over TCP, and over TCP with TLS, in the same run: bytes per CPU-second of both ends.
//!
//! All of it is on loopback, between two ends in this process, so the process's CPU time is that of both. `FORM_BENCH_MIB` sets the bytes of a round
//! (default 512); an argument runs only the ways whose name holds it. Figures are medians of alternating rounds. With `FORM_BENCH_JSON=path`, each is appended there as a line of JSON.

use std::{env, fs::OpenOptions, io::Write, net::SocketAddr, sync::Arc, time::Duration, time::Instant};

use async_trait::async_trait;
use bytes::Bytes;
use form_transport::{
    BiStream, Envelope, ItemSink, NodeId, NodeKey, PeerAddr, Service, Transport, limits::DATAGRAM_BYTES_MAX,
};
use rustix::time::{ClockId, clock_gettime};
use rustls::{
    ClientConfig, DigitallySignedStruct, ServerConfig, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime},
    sign::CertifiedKey,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

const MIB: usize = 1 << 20;
const ROUNDS: usize = 9;
const TLS: &str = "TCP + TLS";
const LOOPBACK: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

#[tokio::main]
async fn main() -> Result<()> {
    // `cargo test --benches` runs this without `--bench`: then it only has to work.
    let (size_mib, rounds) = match env::args().any(|arg| arg == "--bench") {
        true => (env::var("FORM_BENCH_MIB").map_or(Ok(512), |size| size.parse())?, ROUNDS),
        false => (8, 1),
    };
    let mut ways = vec![
        Way::new("TCP", Ends::Tcp(None)),
        Way::new(TLS, Ends::Tcp(Some(Tls::new()?))),
        Way::new("QUIC, MTU 1452", Ends::Quic(Box::new(Pair::new(1452)?))),
        Way::new("QUIC, MTU of loopback", Ends::Quic(Box::new(Pair::new(DATAGRAM_BYTES_MAX)?))),
    ];
    let only: Vec<String> = env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    ways.retain(|way| only.is_empty() || only.iter().any(|only| way.name.contains(only)));
    for _ in 0..rounds {
        for way in &mut ways {
            way.round(size_mib).await?;
        }
    }
    println!("{size_mib} MiB a round, {rounds} rounds, {} CPUs", std::thread::available_parallelism()?);
    println!("| way | MiB / CPU-second of both ends | MiB / s | / TCP + TLS of the same round, per CPU-second |");
    println!("| --- | --- | --- | --- |");
    let tls = ways.iter().find(|way| way.name == TLS).map_or(Vec::new(), |way| way.per_cpu_second.clone());
    for way in &ways {
        let ratios: Vec<_> = way.per_cpu_second.iter().zip(&tls).map(|(way, tls)| way / tls).collect();
        let [per_cpu_second, per_second, ratio] = [&way.per_cpu_second, &way.per_second, &ratios].map(|of| median(of));
        println!("| {} | {per_cpu_second:.0} | {per_second:.0} | {ratio:.2} |", way.name);
        record(way.name, per_cpu_second, "MiB/cpu_s")?;
        record(&format!("{} / {TLS}", way.name), ratio, "ratio per cpu_s")?;
    }
    Ok(())
}

/// One way over loopback, and what each round gave.
struct Way {
    name: &'static str,
    ends: Ends,
    per_cpu_second: Vec<f64>,
    per_second: Vec<f64>,
}

enum Ends {
    Tcp(Option<Tls>),
    Quic(Box<Pair>),
}

impl Way {
    fn new(name: &'static str, ends: Ends) -> Self {
        Self { name, ends, per_cpu_second: Vec::new(), per_second: Vec::new() }
    }

    async fn round(&mut self, size_mib: usize) -> Result<()> {
        let (cpu, wall) = (cpu_time(), Instant::now());
        match &self.ends {
            Ends::Tcp(tls) => tcp(tls.as_ref(), size_mib).await?,
            Ends::Quic(pair) => pair.fetch(size_mib).await?,
        }
        let (cpu, wall) = (cpu_time() - cpu, wall.elapsed());
        self.per_cpu_second.push(size_mib as f64 / cpu.as_secs_f64());
        self.per_second.push(size_mib as f64 / wall.as_secs_f64());
        Ok(())
    }
}

fn cpu_time() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(spent.tv_sec.unsigned_abs(), spent.tv_nsec.unsigned_abs() as u32)
}

async fn tcp(tls: Option<&Tls>, size_mib: usize) -> Result<()> {
    let listener = TcpListener::bind(LOOPBACK).await?;
    let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr()?), listener.accept());
    let (near, far) = (near?, far?.0);
    match tls {
        None => stream(near, far, size_mib).await,
        Some(tls) => {
            let name = ServerName::try_from("form")?;
            let (near, far) = tokio::join!(tls.connector.connect(name, near), tls.acceptor.accept(far));
            stream(near?, far?, size_mib).await
        }
    }
}

/// Moves the bytes from one end to the other, in pieces as long as a frame.
async fn stream(
    mut reader: impl AsyncRead + Unpin,
    mut writer: impl AsyncWrite + Send + Unpin + 'static,
    size_mib: usize,
) -> Result<()> {
    let writing = tokio::spawn(async move {
        let piece = vec![7; MIB];
        for _ in 0..size_mib {
            writer.write_all(&piece).await?;
        }
        writer.shutdown().await
    });
    let (mut got, mut piece) = (0, vec![0; MIB]);
    while got < size_mib * MIB {
        match reader.read(&mut piece).await? {
            0 => return Err("the stream ended early".into()),
            read => got += read,
        }
    }
    Ok(writing.await??)
}

/// Both ends of TLS 1.3 as our QUIC does it: the same provider and suites, raw public keys.
struct Tls {
    connector: tokio_rustls::TlsConnector,
    acceptor: tokio_rustls::TlsAcceptor,
}

impl Tls {
    fn new() -> Result<Self> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let dir = tempfile::tempdir()?;
        let (key, path) = (NodeKey::generate()?, dir.path().join("key"));
        key.save(&path)?;
        let signing = provider.key_provider.load_private_key(PrivatePkcs8KeyDer::from(std::fs::read(path)?).into())?;
        let spki = signing.public_key().ok_or("the key has no public key")?;
        let certified = Arc::new(CertifiedKey::new(vec![CertificateDer::from(spki.to_vec())], signing));
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(rustls::server::AlwaysResolvesServerRawPublicKeys::new(certified)));
        let client = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)))
            .with_no_client_auth();
        Ok(Self { connector: Arc::new(client).into(), acceptor: Arc::new(server).into() })
    }
}

/// Believes that the other end of this process is who it says.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// Two nodes that trust each other.
struct Pair {
    asking: Transport,
    _serving: Transport,
    peer: PeerAddr,
}

impl Pair {
    fn new(datagram_bytes_max: u16) -> Result<Self> {
        let bind = |key: &NodeKey| Transport::bind_narrow(LOOPBACK, key, Arc::new(Pieces), datagram_bytes_max);
        let (near, far) = (NodeKey::generate()?, NodeKey::generate()?);
        let (asking, serving) = (bind(&near)?, bind(&far)?);
        let peer = PeerAddr { id: far.id(), addr: serving.local_addr() };
        Ok(Self { asking, _serving: serving, peer })
    }

    async fn fetch(&self, size_mib: usize) -> Result<()> {
        let mut items = self.asking.fetch(&self.peer, (size_mib as u64).to_le_bytes().to_vec()).await?;
        let mut got = 0;
        while let Some(item) = items.next().await? {
            got += item.len();
        }
        if got != size_mib * MIB { Err("not all bytes arrived".into()) } else { Ok(()) }
    }
}

/// Serves as many items of 1 MiB as it is asked for.
struct Pieces;

#[async_trait]
impl Service for Pieces {
    async fn trusted(&self, _peer: NodeId) -> bool {
        true
    }

    async fn message(&self, _from: NodeId, _msg: Envelope) {}

    async fn request(&self, _from: NodeId, body: Vec<u8>) -> Vec<u8> {
        body
    }

    async fn fetch(&self, _from: NodeId, req: Vec<u8>, sink: ItemSink) -> std::result::Result<(), String> {
        let count = u64::from_le_bytes(req.try_into().map_err(|_| "not a count")?);
        let piece = Bytes::from(vec![7; MIB]);
        for _ in 0..count {
            sink.send(piece.clone()).await.map_err(|e| e.to_string())?;
        }
        Ok(())
    }

    async fn http(&self, _from: NodeId, _stream: BiStream) {}
}

fn record(name: &str, value: f64, unit: &str) -> Result<()> {
    if let Some(path) = env::var_os("FORM_BENCH_JSON") {
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        writeln!(file, r#"{{"bench":"quic","name":"{name}","value":{value:.3},"unit":"{unit}"}}"#)?;
    }
    Ok(())
}

fn median(values: &[f64]) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
