package bgp

import (
	"net/netip"
	"regexp"
	"strings"

	"github.com/pharos-lb/pharos/bgp/internal/engine"
)

// An autopsy finds the peer whose message ended a child: the engine labels the goroutines of each session with its
// peer, and the runtime prints the labels of the goroutine that crashed first of all.
type autopsy struct {
	goroutines int
	label      netip.Addr
	culprit    netip.Addr // zero = nobody in particular
}

var crashed = regexp.MustCompile(`^goroutine \d+ .*labels:\{"?` + engine.PeerLabel + `"?: "?([0-9a-fA-F.:]+)"?\}`)

// read takes one line that the child wrote besides its log.
func (a *autopsy) read(line string) {
	switch {
	case strings.HasPrefix(line, "goroutine "):
		a.goroutines++
		if m := crashed.FindStringSubmatch(line); m != nil && a.goroutines == 1 {
			a.label, _ = netip.ParseAddr(m[1])
		}
	// Only the goroutines of a session handle what its peer sends; GoBGP's
	// own, which serves all, has the label of whomever it served last.
	case a.goroutines == 1 && strings.Contains(line, engine.SessionFrame):
		a.culprit = a.label
	}
}
