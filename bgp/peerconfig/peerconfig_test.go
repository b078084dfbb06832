package peerconfig

import (
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pharos-lb/pharos/bgp/bed"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// plain is a directly connected router, full has everything that can be set.
func plain() Router {
	return Router{
		Site: "fra", Address: netip.MustParseAddr("10.9.1.2"), ASN: 64496, Port: 179, Fleet: 64500, FleetPort: 179,
		Nodes:    []Node{{"fra1", netip.MustParseAddr("10.9.1.1")}},
		Hold:     9 * time.Second,
		Prefixes: prefixes("198.18.0.0/24"),
	}
}

func variants() map[string]Router {
	full := plain()
	full.Nodes = append(full.Nodes, Node{"fra2.example.net", netip.MustParseAddr("10.9.1.3")})
	full.Password, full.TTLSecurity, full.FleetPort = true, 1, 1790
	full.BFD = BFD{Interval: 300 * time.Millisecond, Multiplier: 3}
	full.Prefixes = prefixes("198.18.0.0/24", "198.18.1.0/24", "2001:db8:80::/48")
	far := plain()
	far.Multihop, far.BFD, far.FleetPort = 3, BFD{Interval: 100 * time.Millisecond, Multiplier: 5, Multihop: true}, 0
	internal := plain()
	internal.ASN, internal.Hold = 64500, 90*time.Second
	six := plain()
	six.Address, six.Nodes = netip.MustParseAddr("2001:db8:1::2"), []Node{{"fra1", netip.MustParseAddr("2001:db8:1::1")}}
	six.Prefixes, six.BFD = prefixes("2001:db8:80::/48"), full.BFD
	return map[string]Router{"plain": plain(), "full": full, "multihop": far, "ibgp": internal, "ipv6": six}
}

func TestGolden(t *testing.T) {
	for _, kind := range Kinds() {
		for name, r := range variants() {
			t.Run(kind+"/"+name, func(t *testing.T) {
				got, err := Render(kind, r)
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join("testdata", kind+"-"+name+".golden")
				if *update {
					if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if d := cmp.Diff(string(want), got); d != "" {
					t.Errorf("-want +got (read the diff of go test -update):\n%s", d)
				}
				check(t, r, got)
			})
		}
	}
}

// check holds what every form has to say.
func check(t *testing.T, r Router, text string) {
	t.Helper()
	for _, p := range r.Prefixes {
		if !strings.Contains(text, p.String()) {
			t.Errorf("%s is not let in", p)
		}
	}
	for _, n := range r.Nodes {
		if !strings.Contains(text, n.Address.String()) {
			t.Errorf("node %s is no neighbor", n.Name)
		}
	}
	if strings.Contains(text, Placeholder) != r.Password {
		t.Errorf("password %v, and the placeholder is not as it should be", r.Password)
	}
	if strings.Contains(text, "bfd") != r.HasBFD() {
		t.Errorf("BFD %v, and the text says otherwise", r.HasBFD())
	}
	if strings.Contains(text, "\n\n") || strings.Contains(text, "<no value>") {
		t.Error("the text has holes")
	}
	if !regexp.MustCompile(`(?i)gshut|65535, 0|graceful-shutdown`).MatchString(text) {
		t.Error("GRACEFUL_SHUTDOWN is not honoured")
	}
}

func TestUnknownRouter(t *testing.T) {
	if _, err := Render("quagga", plain()); err == nil || !strings.Contains(err.Error(), "ios-xr") {
		t.Errorf("error %v, want one that lists what is known", err)
	}
}

// TestSyntax has the real programs read every variant.
func TestSyntax(t *testing.T) {
	for name, r := range variants() {
		t.Run("bird/"+name, func(t *testing.T) {
			text, err := Render("bird", r)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := bed.CheckBIRD(t, "router id 10.9.1.2;\nprotocol device {}\n"+text); err != nil {
				t.Errorf("%v\n%s\n%s", err, out, text)
			}
		})
		t.Run("frr/"+name, func(t *testing.T) {
			t.Parallel()
			text, err := Render("frr", r)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := bed.CheckFRR(t, text); err != nil {
				t.Errorf("vtysh -C: %v\n%s", err, out)
			}
			bed.New(t).Namespace("r").FRR(text) // vtysh -f: every line is taken, or the test ends
		})
	}
}
