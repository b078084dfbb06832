package lab

import (
	"fmt"
	"strings"
)

// birdConfig writes the configuration of a router that is BIRD.
func birdConfig(r RouterPlan, transit bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, `log stderr all;
router id %s;
protocol device { scan time 10; }
protocol kernel { ipv4 { import none; export where source = RTS_BGP; }; merge paths yes; scan time 10; }
protocol kernel { ipv6 { import none; export where source = RTS_BGP; }; merge paths yes; scan time 10; }
`, r.ID)
	b.WriteString("protocol bfd {\n") // one for all: each would want the port for itself
	for _, s := range r.Sessions {
		if bfd := s.bfd(); bfd.Interval > 0 {
			fmt.Fprintf(&b, "\tinterface \"%s\" { interval %d us; multiplier %d; };\n", s.Link, bfd.Interval.Microseconds(), bfd.Multiplier)
		}
	}
	b.WriteString("}\n")
	for _, s := range r.Sessions {
		fmt.Fprintf(&b, "protocol bgp b_%s {\n\tlocal %s port %d as %d;\n\tneighbor %s port %d as %d;\n\tinterface \"%s\";\n",
			birdName(s.Name), s.Local, s.Peer.Port, s.LocalASN, s.Remote, s.NodePort, s.ASN, s.Link)
		b.WriteString("\tstrict bind yes;\n\tconnect delay time 1;\n\tconnect retry time 2;\n\terror wait time 1, 2;\n")
		if password := s.Peer.Password.Reveal(); password != "" {
			fmt.Fprintf(&b, "\tpassword \"%s\";\n", password)
		}
		if s.bfd().Interval > 0 {
			b.WriteString("\tbfd on;\n")
		}
		if s.Peer.TTLSecurity > 0 {
			b.WriteString("\tttl security on;\n")
		}
		// A node's routes go on to the transit, and nothing to a node.
		in, out := "all", "none"
		if !s.Node && !transit {
			in, out = "none", "where source = RTS_BGP"
		}
		for _, family := range []string{"ipv4", "ipv6"} {
			fmt.Fprintf(&b, "\t%s { import %s; export %s; };\n", family, in, out)
		}
		b.WriteString("}\n")
	}
	return b.String()
}

// birdName turns a name into a symbol of BIRD's.
func birdName(name string) string {
	return strings.ReplaceAll(strings.ReplaceAll(name, "-", "_"), ".", "_")
}
