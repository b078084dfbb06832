package health

// leaving returns the sites of which every node has said in its newest report that it is
// stopping. A node that was never heard, or whose newest word is another, is not gone: silence is no evidence.
func (l *Ledger) leaving() (sites []string) {
	stays := make([]bool, len(l.sites))
	some := false
	for _, e := range l.held {
		left := e.report != nil && !e.conflict && e.report.Flags&FlagLeaving != 0
		some = some || left
		stays[e.site] = stays[e.site] || !left
	}
	if !some {
		return nil
	}
	for i, site := range l.sites {
		if !stays[i] {
			sites = append(sites, site)
		}
	}
	return sites
}
