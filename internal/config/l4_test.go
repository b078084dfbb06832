package config_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/pharos-lb/pharos/internal/config"
)

// tcpDefaults is a listener of connections of which only these keys are given.
func tcpDefaults(service string, idle, connect time.Duration) *config.TCPListener {
	return &config.TCPListener{
		Service: service, Idle: idle, Connect: connect,
		Hello: 5 * time.Second, Backlog: 4096, KeepAlive: time.Minute,
		Limits:      config.Limits{ClientIPv4: 32, ClientIPv6: 64, Clients: 65536},
		BackendGone: "keep", GoneAfter: 30 * time.Second,
	}
}

// TestTCPListener: every key of a listener of connections arrives.
func TestTCPListener(t *testing.T) {
	cfg := good(t, "l4.yaml")
	want := &config.TCPListener{
		Routes: []config.TLSRoute{
			{SNI: "*.example.com", ALPN: []string{"h2", "http/1.1"}, Service: "web"},
			{ALPN: []string{"acme-tls/1"}, Service: "api"},
			{Service: "cache"},
		},
		Idle: 10 * time.Minute, Connect: 2 * time.Second, Lifetime: 2 * time.Hour, Hello: 3 * time.Second,
		Backlog: 100, KeepAlive: 30 * time.Second, UserTimeout: 20 * time.Second,
		FastOpen: true, DeferAccept: 5 * time.Second,
		AcceptProxy: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, SendProxy: "v2",
		Sources: []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("2001:db8::1")},
		Limits: config.Limits{
			Connections: 1, ServiceConnections: 2, Rate: 3, ClientConnections: 4, ClientRate: 5,
			ClientIPv4: 24, ClientIPv6: 56, Clients: 100,
		},
		BackendGone: "drain", GoneAfter: 10 * time.Second,
	}
	departures := make(map[string]time.Duration)
	for _, s := range cfg.Services {
		departures[s.Name+" "+s.BackendGone] = s.GoneAfter
	}
	if diff := cmp.Diff(map[string]time.Duration{"web abort": 0, "api ": 0, "cache drain": 30 * time.Second}, departures); diff != "" {
		t.Errorf("services: -want +got:\n%s", diff)
	}
	for _, l := range cfg.Listeners {
		if l.Bind.Port == 8443 {
			if diff := cmp.Diff(want, l.TCP, same); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
			return
		}
	}
	t.Error("the listener is not there")
}

// TestUDPListener: every key of a listener of datagrams arrives, and a port may be
// had over UDP and over TCP.
func TestUDPListener(t *testing.T) {
	var got []*config.UDPListener
	for _, l := range good(t, "udp.yaml").Listeners {
		if l.UDP != nil {
			got = append(got, l.UDP)
		}
	}
	want := []*config.UDPListener{
		{Service: "dns", Idle: 5 * time.Second, Responses: 1, Sessions: 16384, BackendGone: "silent", GoneAfter: 2 * time.Second},
		{Service: "log", Idle: 30 * time.Second, Responses: 0, Sessions: 100, BackendGone: "silent", GoneAfter: 2 * time.Second},
		{Service: "web", Idle: 30 * time.Second, Responses: -1, Sessions: 16384, BackendGone: "silent", GoneAfter: 2 * time.Second, QUIC: &config.QUIC{
			Length: 8, Servers: map[string]netip.AddrPort{
				"\x0a\x01": netip.MustParseAddrPort("10.0.0.1:443"), "\x0a\x02": netip.MustParseAddrPort("10.0.0.2:443"),
			},
		}},
		{Service: "log", Idle: 30 * time.Second, Responses: -1, Sessions: 16384, Offload: true, BackendGone: "silent", GoneAfter: 2 * time.Second},
		{Service: "log", Idle: 30 * time.Second, Responses: 0, Sessions: 16384, BackendGone: "silent", GoneAfter: 2 * time.Second},
		{Service: "log", Idle: 30 * time.Second, Responses: -1, Sessions: 16384, BackendGone: "drain", GoneAfter: 30 * time.Second},
		{Service: "log", Idle: 30 * time.Second, Responses: -1, Sessions: 16384, BackendGone: "silent", GoneAfter: 500 * time.Millisecond},
		{Service: "log", Idle: 30 * time.Second, Responses: -1, Sessions: 16384, BackendGone: "abort"},
	}
	for i, l := range want {
		l.Limits = config.Limits{ClientIPv4: 32, ClientIPv6: 64, Clients: 65536}
		if i == len(want)-1 {
			l.Limits = config.Limits{Rate: 3, ClientRate: 5, ClientIPv4: 24, ClientIPv6: 56, Clients: 100}
		}
	}
	if diff := cmp.Diff(want, got, same); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}
