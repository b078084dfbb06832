package node

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func addrPorts(texts ...string) (out []netip.AddrPort) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return out
}

func TestParseSeeds(t *testing.T) {
	for _, tt := range []struct {
		text string
		want []netip.AddrPort
	}{
		{"", nil},
		{"192.0.2.1", addrPorts("192.0.2.1:7946")},
		{"192.0.2.1:99\r\n", addrPorts("192.0.2.1:99")},
		{"# us\n\n 192.0.2.1 # fra\n[2001:db8::1]:99\n2001:db8::2", addrPorts("192.0.2.1:7946", "[2001:db8::1]:99", "[2001:db8::2]:7946")},
		{"fra1.example.net\n192.0.2.1:99999\n192.0.2.2", addrPorts("192.0.2.2:7946")},
	} {
		if got := parseSeeds([]byte(tt.text), 7946); !slices.Equal(got, tt.want) {
			t.Errorf("%q: got %v, want %v", tt.text, got, tt.want)
		}
	}
}

// Every address that is found stands on a line of its own, and none is left out.
func FuzzParseSeeds(f *testing.F) {
	f.Add([]byte("192.0.2.1 # fra\n[2001:db8::1]:99\r\nrubbish\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > maxSeedsFile-1 {
			return
		}
		var want []netip.AddrPort
		for line := range bytes.SplitSeq(data, []byte("\n")) {
			line, _, _ = bytes.Cut(line, []byte("#"))
			text := strings.TrimSpace(string(line))
			if a, err := netip.ParseAddrPort(text); err == nil {
				want = append(want, a)
			} else if a, err := netip.ParseAddr(text); err == nil {
				want = append(want, netip.AddrPortFrom(a, 7))
			}
		}
		if got := parseSeeds(data, 7); !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestReadSeeds(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "seeds")
	if _, err := readSeeds(file, 1); err == nil {
		t.Error("a file that is not there was read")
	}
	if _, err := readSeeds(dir, 1); err == nil {
		t.Error("a folder was read")
	}
	write(t, file, "192.0.2.1\n")
	if got, err := readSeeds(file, 7946); err != nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
	if err := os.Truncate(file, maxSeedsFile+1); err != nil {
		t.Fatal(err)
	}
	if _, err := readSeeds(file, 1); err == nil {
		t.Error("a file too long was read")
	}
}

// fakeResolver knows what the test says.
type fakeResolver struct {
	addrs   map[string][]netip.Addr
	records map[string][]*net.SRV
}

var errNoName = errors.New("no such name")

func (f fakeResolver) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	if found, ok := f.addrs[host]; ok && network == "ip" {
		return found, nil
	}
	return nil, errNoName
}

func (f fakeResolver) LookupSRV(_ context.Context, service, proto, name string) (string, []*net.SRV, error) {
	if found, ok := f.records[name]; ok && service == "" && proto == "" {
		return name, found, nil
	}
	return "", nil, errNoName
}

// A name gives addresses, a service's name its targets, and a target that is
// gone does not hide the others.
func TestLookupSeeds(t *testing.T) {
	r := fakeResolver{
		addrs: map[string][]netip.Addr{
			"nodes.t.test.": {netip.MustParseAddr("::ffff:192.0.2.1"), netip.MustParseAddr("2001:db8::1")},
			"one.t.test.":   {netip.MustParseAddr("192.0.2.9")},
		},
		records: map[string][]*net.SRV{"_pharos._tcp.t.test.": {
			{Target: "gone.t.test.", Port: 71}, {Target: "one.t.test.", Port: 72},
		}},
	}
	for _, tt := range []struct {
		name string
		want []netip.AddrPort
		fine bool
	}{
		{"nodes.t.test.", addrPorts("192.0.2.1:7946", "[2001:db8::1]:7946"), true},
		{"_pharos._tcp.t.test.", addrPorts("192.0.2.9:72"), false},
		{"gone.t.test.", nil, false},
		{"_gone._tcp.t.test.", nil, false},
	} {
		got, err := lookupSeeds(t.Context(), r, tt.name, 7946)
		if !slices.Equal(got, tt.want) || (err == nil) != tt.fine {
			t.Errorf("%s: got %v, %v, want %v", tt.name, got, err, tt.want)
		}
	}
}
