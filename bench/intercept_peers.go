package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"gatewayd/lab"
)

// Ports at which the peers that decrypt listen. What the guest sends to the servers' own addresses is redirected to those
// of squid and of mitmproxy while they are measured: both take it as transparent proxies do.
const (
	nginxTLSPort  = 8004
	squidPort     = 8005
	mitmproxyPort = 8006
	squidOwnPort  = 8007 // squid insists on one port that is not intercepted
)

// redirected are the paths whose gateway redirects, and where to.
var redirected = map[string]int{viaSquid: squidPort, viaMitmproxy: mitmproxyPort}

const redirectTable = "bench_redirect"

// bumpCA is the file with the authority, key included, that signs squid's and mitmproxy's certificates, bumpCert the one
// without, which their clients trust.
const bumpCA, bumpCert = "mitm/mitmproxy-ca.pem", "bump.pem"

// startInterceptors starts the peers that terminate TLS, beside HAProxy: nginx with the server's own certificates, squid
// and mitmproxy with an authority of their own. One that does not start is absent, with the reason.
func (w *world) startInterceptors(ctx context.Context, o *options) error {
	if !o.takes(viaNginxTLS, viaSquid, viaMitmproxy) {
		return nil
	}
	ca, err := lab.NewCA("the bench's interceptors")
	if err != nil {
		return err
	}
	key, err := ca.KeyPEM()
	if err != nil {
		return err
	}
	if _, err := w.write(bumpCert, string(ca.PEM())); err != nil {
		return err
	}
	if _, err := w.write(bumpCA, string(key)+string(ca.PEM())); err != nil {
		return err
	}
	defer func() { w.closers = append(w.closers, w.removeShared) }() // after the programs have ended
	for _, peer := range []struct {
		via, program string
		port         int
		command      func(context.Context, *options, string) ([]string, error)
	}{
		{viaNginxTLS, "nginx", nginxTLSPort, w.nginxTLS}, {viaSquid, "squid", squidPort, w.squid}, {viaMitmproxy, "mitmdump", mitmproxyPort, w.mitmproxy},
	} {
		if !o.takes(peer.via) {
			continue
		}
		if err := w.startInterceptor(ctx, o, peer.via, peer.program, peer.port, peer.command); err != nil {
			o.say("%s is absent: %v", peer.via, err)
			w.absent[peer.via] = err
		}
	}
	return nil
}

func (w *world) startInterceptor(ctx context.Context, o *options, via, name string, port int, command func(context.Context, *options, string) ([]string, error)) error {
	path, err := o.packages.find(ctx, name)
	if err != nil {
		return err
	}
	argv, err := command(ctx, o, path)
	if err != nil {
		return err
	}
	conf, err := w.write("openssl.cnf", opensslConfig)
	if err != nil {
		return err
	}
	p, err := w.run(ctx, w.peerGateway, append(o.packages.env(), "OPENSSL_CONF="+conf), nil, argv...)
	if err != nil {
		return err
	}
	if err := p.answers(ctx, w.peerGateway, netip.AddrPortFrom(peerNear.Addr(), uint16(port))); err != nil {
		return err
	}
	w.peers[via] = p
	return nil
}

// opensslConfig gives programs that have no setting of their own for it the cipher and the curve of all others.
const opensslConfig = `openssl_conf = all
[all]
ssl_conf = ssl
[ssl]
system_default = tls
[tls]
MinProtocol = TLSv1.3
Ciphersuites = ` + cipherSuite + `
Groups = X25519
`

// nginxTLS is how nginx starts as a proxy that re-encrypts.
func (w *world) nginxTLS(_ context.Context, _ *options, path string) ([]string, error) {
	var sites strings.Builder
	for _, s := range []struct {
		name, kind string
		to         netip.Addr
	}{{apiName, "api", w.api}, {scannedName, "taker", w.taker}} {
		cert := map[string]string{apiName: w.file("api.pem"), scannedName: w.file(scannedName + ".pem")}[s.name]
		fmt.Fprintf(&sites, `    upstream %[1]s { server %[2]s:443; keepalive 64; }
    server {
        listen %[3]s:%[4]d ssl http2;
        server_name %[5]s;
        ssl_certificate %[6]s;
        ssl_certificate_key %[6]s;
        location / {
            proxy_pass https://%[1]s;
            proxy_ssl_name %[5]s;
        }
    }
`, s.kind, s.to, peerNear.Addr(), nginxTLSPort, s.name, cert)
	}
	config, err := w.write("reencrypt/nginx.conf", fmt.Sprintf(`daemon off;
user root;
pid %[1]s;
error_log stderr error;
worker_processes auto;
worker_rlimit_nofile 65536;
events { worker_connections 20000; }
http {
    access_log off;
    keepalive_requests 10000000;
    keepalive_timeout 300s;
    client_max_body_size 0;
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites %[2]s;
    ssl_ecdh_curve X25519;
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_buffering off;
    proxy_ssl_protocols TLSv1.3;
    proxy_ssl_server_name on;
    proxy_ssl_verify on;
    proxy_ssl_trusted_certificate %[3]s;
    map $http_upgrade $upgrading { default upgrade; '' ''; }
    proxy_set_header Host $host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $upgrading;
    proxy_set_header Authorization "Bearer %[4]s";
%[5]s%[6]s}
`, w.file("reencrypt.pid"), cipherSuite, w.file("ca.pem"), realToken, nginxTemp(w.file("reencrypt")), sites.String()))
	if err != nil {
		return nil, err
	}
	return w.nginx(path, "reencrypt", config), nil
}

// squid is how squid starts: it bumps every connection, with certificates that its helper signs. It refuses to be root, so the
// helper must be where nobody reaches it.
func (w *world) squid(_ context.Context, _ *options, path string) ([]string, error) {
	prefix := strings.TrimSuffix(path, "/usr/sbin/squid")
	helper := filepath.Join(prefix, "usr/lib/squid/security_file_certgen")
	config, err := w.write("squid/squid.conf", fmt.Sprintf(`http_port 127.0.0.1:%[1]d
https_port %[2]s:%[3]d intercept ssl-bump generate-host-certificates=on dynamic_cert_mem_cache_size=4MB tls-cert=%[4]s
sslcrtd_program %[5]s
acl hello at_step SslBump1
ssl_bump peek hello
ssl_bump bump all
tls_outgoing_options cafile=%[7]s
http_access allow all
request_header_access Authorization deny all
request_header_replace Authorization Bearer %[8]s
via off
forwarded_for delete

http_upgrade_request_protocols websocket allow all
cache deny all
cache_mem 8 MB
access_log none
cache_log /dev/null
cache_store_log none
debug_options ALL,1
pid_filename none
pinger_enable off
unlinkd_program %[13]s
dns_nameservers %[9]s
mime_table %[10]s
icon_directory %[11]s
error_directory %[12]s
coredump_dir %[6]s
cache_effective_user nobody
cache_effective_group root
max_filedescriptors 20000
shutdown_lifetime 0 seconds
read_timeout 10 minutes
`, squidOwnPort, peerNear.Addr(), squidPort, w.file(bumpCA), helper, w.file("squid"), w.file("ca.pem"), realToken, lab.Resolver.Addr(),
		w.systemFile(prefix, "usr/share/squid/mime.conf", "etc/squid/mime.conf"), filepath.Join(prefix, "usr/share/squid/icons"),
		w.systemFile(prefix, "usr/share/squid/errors/en", "usr/share/squid-langpack/en", "usr/share/squid/errors/English"),
		filepath.Join(prefix, "usr/lib/squid/unlinkd")))
	if err != nil {
		return nil, err
	}
	return []string{path, "-N", "-d", "1", "-n", w.ID, "-f", config}, nil
}

// removeShared removes the shared memory that squid leaves when it is killed. Its name begins with the service's.
func (w *world) removeShared() error {
	left, err := filepath.Glob("/dev/shm/" + w.ID + "-*")
	for _, path := range left {
		err = errors.Join(err, os.Remove(path))
	}
	return err
}

// systemFile is the first of the paths below prefix that is there, or the first.
func (w *world) systemFile(prefix string, paths ...string) string {
	for _, p := range paths {
		if _, err := os.Stat(filepath.Join("/", prefix, p)); err == nil {
			return filepath.Join("/", prefix, p)
		}
	}
	return filepath.Join("/", prefix, paths[0])
}

// mitmproxyScript sets the header and lets bodies through as they come.
const mitmproxyScript = `def requestheaders(flow):
    flow.request.headers["Authorization"] = "Bearer %s"
    flow.request.stream = True

def responseheaders(flow):
    flow.response.stream = True
`

// mitmproxy is how mitmdump starts, without printing what it sees.
func (w *world) mitmproxy(_ context.Context, _ *options, path string) ([]string, error) {
	script, err := w.write("mitm/header.py", fmt.Sprintf(mitmproxyScript, realToken))
	if err != nil {
		return nil, err
	}
	return []string{path, "-q", "--mode", "transparent", "--listen-host", peerNear.Addr().String(), "--listen-port", fmt.Sprint(mitmproxyPort),
		"--set", "confdir=" + filepath.Dir(w.file(bumpCA)), "--set", "ssl_verify_upstream_trusted_ca=" + w.file("ca.pem"),
		"--set", "block_global=false", "--set", "flow_detail=0", "-s", script}, nil
}

// redirect sends what the guest sends to the servers to a port of the peers' gateway, and returns what ends that.
func (w *world) redirect(ctx context.Context, o *options, port int) (remove func() error, err error) {
	rules, err := w.write("redirect.nft", fmt.Sprintf(`table ip %s {
    chain pre {
        type nat hook prerouting priority dstnat;
        iifname "lan0" ip daddr { %s, %s } tcp dport 443 redirect to :%d
    }
}
`, redirectTable, w.api, w.taker, port))
	if err != nil {
		return nil, err
	}
	if err := w.nft(ctx, o, w.peerGateway, "-f", rules); err != nil {
		return nil, err
	}
	return func() error { return w.nft(ctx, o, w.peerGateway, "delete", "table", "ip", redirectTable) }, nil
}
