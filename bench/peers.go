package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Ports at which the peers listen for the peers' bottle.
const (
	haproxyPort   = 8001 // TCP mode, a rule for the name in the hello
	nginxPort     = 8002 // stream, ssl_preread
	reencryptPort = 8003 // HTTP mode: TLS towards the client, TLS verified towards the server, one header set
)

// The same cipher for everybody: left alone, OpenSSL's servers prefer AES-256 and Go's AES-128.
const cipherSuite = "TLS_AES_128_GCM_SHA256"

// haproxyConfig is the configuration of HAProxy as both kinds of peer.
func (w *world) haproxyConfig() string {
	return fmt.Sprintf(`global
    maxconn 6000
    ssl-default-bind-options ssl-min-ver TLSv1.3
    ssl-default-bind-ciphersuites %[1]s
    ssl-default-bind-curves X25519
    ssl-default-server-ciphersuites %[1]s

defaults
    timeout connect 10s
    timeout client 60s
    timeout server 60s

frontend by_name
    mode tcp
    bind %[2]s:%[3]d
    tcp-request inspect-delay 5s
    tcp-request content accept if { req.ssl_hello_type 1 }
    use_backend raw if { req.ssl_sni -i -m end .%[4]s } or { req.ssl_sni -i %[4]s }
    use_backend web if { req.ssl_sni -i %[5]s }

backend raw
    mode tcp
    server raw %[6]s:443

backend web
    mode tcp
    server web %[7]s:443

frontend reencrypt
    mode http
    bind %[2]s:%[8]d ssl crt %[9]s crt %[15]s crt %[17]s alpn h2,http/1.1
    http-request set-header Authorization "Bearer %[10]s"
    use_backend taker if { ssl_fc_sni %[14]s }
    use_backend both if { ssl_fc_sni %[18]s }
    default_backend api

backend api
    mode http
    http-reuse always
    server api %[11]s:443 ssl verify required ca-file %[12]s sni str(%[13]s) verifyhost %[13]s alpn http/1.1

backend taker
    mode http
    http-reuse always
    server taker %[16]s:443 ssl verify required ca-file %[12]s sni str(%[14]s) verifyhost %[14]s alpn http/1.1

backend both
    mode http
    http-reuse always
    server both %[19]s:443 ssl verify required ca-file %[12]s sni str(%[18]s) verifyhost %[18]s alpn h2,http/1.1
`, cipherSuite, peerNear.Addr(), haproxyPort, rawName, webName, w.raw, w.web, reencryptPort, w.file("api.pem"), realToken,
		w.api, w.file("ca.pem"), apiName, scannedName, w.file(scannedName+".pem"), w.taker,
		w.file("both.pem"), bothName, w.both)
}

// nginxTemp keeps nginx away from the system's directories.
func nginxTemp(dir string) string {
	var b strings.Builder
	for _, kind := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		fmt.Fprintf(&b, "    %s_temp_path %s;\n", kind, filepath.Join(dir, kind))
	}
	return b.String()
}

// streamConfig is the configuration of nginx as a peer.
func (w *world) streamConfig(module string) string {
	return fmt.Sprintf(`load_module %[1]s;
daemon off;
user root;
pid %[2]s;
error_log stderr error;
worker_processes auto;
events { worker_connections 4096; }
stream {
    map $ssl_preread_server_name $upstream {
        hostnames;
        .%[3]s %[4]s:443;
        %[5]s %[6]s:443;
    }
    server {
        listen %[7]s:%[8]d;
        ssl_preread on;
        proxy_pass $upstream;
        proxy_half_close on;
    }
}
`, module, w.file("stream.pid"), rawName, w.raw, webName, w.web, peerNear.Addr(), nginxPort)
}

// webConfig is the configuration of nginx as the web server that HTTP loads ask.
func (w *world) webConfig() string {
	var servers strings.Builder
	for _, s := range []struct{ addr, name, base, more string }{
		{w.web.String(), webName, "web", ""}, {relayWebAddr.String(), webName, "web", ""},
		{w.api.String(), apiName, "api", ""}, {w.api.String(), plainName, "plain", ""}, {w.both.String(), bothName, "both", " http2"},
	} {
		fmt.Fprintf(&servers, `    server {
        listen %s:443 ssl%s;
        server_name %s;
        ssl_certificate %s;
        ssl_certificate_key %s;
        root %s;
    }
`, s.addr, s.more, s.name, w.file(s.base+".pem"), w.file(s.base+".pem"), w.file("www"))
	}
	return fmt.Sprintf(`daemon off;
user root;
pid %[1]s;
error_log stderr error;
worker_processes auto;
worker_rlimit_nofile 65536;
events { worker_connections 20000; }
http {
    access_log off;
    sendfile on;
    keepalive_requests 10000000;
    keepalive_timeout 300s;
    ssl_protocols TLSv1.3;
    ssl_conf_command Ciphersuites %[2]s;
    ssl_ecdh_curve X25519;
%[3]s%[4]s}
`, w.file("web.pid"), cipherSuite, nginxTemp(w.file("web")), servers.String())
}

// nginx starts one with a configuration, whose files lie below a directory of its own.
func (w *world) nginx(path, name, config string) []string {
	return []string{path, "-e", "stderr", "-p", w.file(name), "-c", config}
}

// write puts a file into the world's directory for this bench.
func (w *world) write(name, text string) (string, error) {
	path := w.file(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return "", fmt.Errorf("make directory: %w", err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		return "", fmt.Errorf("write file: %w", err)
	}
	return path, nil
}
