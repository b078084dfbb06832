package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// backendPort is where all proxies forward to.
const backendPort = 19000

// A peer is one proxy.
type peer struct {
	name       string
	plain, tls string // addresses
	command    []string
}

func peers(dir, pharos string) []peer {
	at := func(name string) string { return filepath.Join(dir, name) }
	return []peer{
		{"pharos", "127.0.0.1:19080", "127.0.0.1:19443", []string{
			pharos, "run", "--config", at("pharos.yaml"), "--node", "bench", "--state-dir", at("state"),
		}},
		{"nginx", "127.0.0.1:19180", "127.0.0.1:19543", []string{"nginx", "-c", at("nginx.conf")}},
		{"HAProxy", "127.0.0.1:19280", "127.0.0.1:19643", []string{"haproxy", "-db", "-f", at("haproxy.cfg")}},
		{"Caddy", "127.0.0.1:19380", "127.0.0.1:19743", []string{"caddy", "run", "--adapter", "caddyfile", "--config", at("Caddyfile")}},
	}
}

// prepare writes the files that are served, the certificate and all configurations.
func prepare(dir string) error {
	certificate, key, err := selfSigned()
	if err != nil {
		return err
	}
	files := map[string][]byte{
		"1k": bytes.Repeat([]byte("x"), 1<<10), "1m": bytes.Repeat([]byte("x"), 1<<20), "index.html": []byte("ok\n"),
		"cert.pem": certificate, "key.pem": key, "both.pem": append(bytes.Clone(certificate), key...),
		"backend.conf": fmt.Appendf(nil, `worker_processes 1; pid %[1]s/backend.pid; error_log stderr crit; daemon off; user root;
events { worker_connections 8192; }
http { access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; sendfile on;
 server { listen 127.0.0.1:%[2]d backlog=8192; root %[1]s; } }
`, dir, backendPort),
		"nginx.conf": fmt.Appendf(nil, `worker_processes 1; pid %[1]s/nginx.pid; error_log stderr crit; daemon off; user root;
events { worker_connections 9000; }
http { access_log off; keepalive_requests 1000000000; keepalive_timeout 300s; ssl_session_tickets on; ssl_protocols TLSv1.2 TLSv1.3;
 upstream b { server 127.0.0.1:%[2]d; keepalive 256; keepalive_requests 1000000000; }
 server { listen 127.0.0.1:19180 backlog=8192; listen 127.0.0.1:19543 ssl http2 backlog=8192;
  ssl_certificate %[1]s/cert.pem; ssl_certificate_key %[1]s/key.pem;
  location / { proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection ""; } } }
`, dir, backendPort),
		"haproxy.cfg": fmt.Appendf(nil, `global
 nbthread 1
 maxconn 9000
 ssl-default-bind-options ssl-min-ver TLSv1.2
defaults
 mode http
 timeout connect 5s
 timeout client 300s
 timeout server 300s
 http-reuse always
frontend f
 bind 127.0.0.1:19280 backlog 8192
 bind 127.0.0.1:19643 ssl crt %[1]s/both.pem alpn h2,http/1.1 backlog 8192
 default_backend b
backend b
 server one 127.0.0.1:%[2]d pool-max-conn 256
`, dir, backendPort),
		"Caddyfile": fmt.Appendf(nil, `{
 admin off
 auto_https off
 log {
  level ERROR
 }
}
http://:19380 {
 bind 127.0.0.1
 reverse_proxy 127.0.0.1:%[2]d
}
https://:19743 {
 bind 127.0.0.1
 tls %[1]s/cert.pem %[1]s/key.pem
 reverse_proxy 127.0.0.1:%[2]d
}
`, dir, backendPort),
		"pharos.yaml": fmt.Appendf(nil, `sites: {fra: {location: FRA, nodes: {bench: 127.0.0.1}}}
services: {web: {check: tcp, backends: {fra: ["127.0.0.1:%[2]d"]}, vip: {fra: 127.0.0.1}}}
listeners:
  - {bind: "vip:19080", http: {idle: 5m, routes: [{service: web}]}}
  - {bind: "vip:19443", http: {idle: 5m, routes: [{service: web}]}, tls: {certificates: {certificate: cert.pem, key: key.pem}}}
dns: {listen: ["127.0.0.1:19053"]}
cluster: {port: 19946}
admin: {socket: pharos.sock}
`, dir, backendPort),
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return err
		}
	}
	return os.Chmod(dir, 0o755) // for the backend's worker
}

func selfSigned() (certificate, key []byte, err error) {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "bench.test"}, DNSNames: []string{"bench.test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return nil, nil, err
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return nil, nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8}), nil
}
