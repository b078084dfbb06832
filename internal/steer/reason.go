package steer

import "fmt"

// A Reason says why a site, a backend or a route is in or out. Its text is what
// operators read; tests and metrics use the value.
type Reason uint8

// The reasons.
const (
	ReasonNone           Reason = iota // not excluded
	ReasonAssumedDown                  // asked for with --down or a test's when.down
	ReasonVIPDown                      // the other sites cannot reach the VIP
	ReasonBackendsDown                 // every backend of the pool is down
	ReasonBackendDown                  // this backend is down
	ReasonNoAddress                    // no VIP of the asked family at this site
	ReasonNotPreferred                 // healthy, but another site comes first for this place
	ReasonWeightZero                   // weight 0 and others are left
	ReasonFailOpen                     // in although not fit: nothing is
	ReasonNotReady                     // this node's listeners are not open
	ReasonNoEvidence                   // nothing measured up yet; too little to announce, or to prefer over what is
	ReasonUnreachedHere                // the site's other nodes reach the backends, this one does not
	ReasonSiteNotAllowed               // the prefix is not for this site
	ReasonNoPeers                      // the site has no BGP peers
	ReasonNoPool                       // the service has no backends at this site
	ReasonDrained                      // ordered: no new work, what is there may end
	ReasonOrderedDown                  // ordered: taken as down
	ReasonOrderedUp                    // in because it is ordered up, whatever the checks say
	ReasonMinimum                      // in although down or ordered out: the service needs so many sites
	ReasonBudget                       // in although the others do not reach it: too many sites would go at a time
	ReasonMassFailure                  // in although the others do not reach it: too many sites failed at once to be true
	ReasonStopping                     // announced less preferred: this node is stopping
	ReasonWarmingUp                    // all is well, but not for long enough
	ReasonFlapping                     // withdrawn too often of late
	ReasonStandby                      // held back: the other sites serve what is needed
	ReasonStandbyRoute                 // announced less preferred: this is a standby site
	ReasonPromoted                     // announced by a standby site: the others serve less than is needed
	ReasonUnanswered                   // drained, stage 1: no longer answered, resolvers still know it
	ReasonDepreferred                  // drained, stage 2: announced less preferred
	ReasonLastSites                    // announced although not fit: too few other sites serve the prefix
	ReasonCutOff                       // announced although not fit: too few sites are heard to know
	ReasonSettling                     // announced although not fit, for a moment: others may be leaving too
	ReasonTurn                         // announced although not fit: another site is leaving, or just left
	ReasonPanic                        // used although down: so few of the pool are up that they could not carry it all
	ReasonVIPMissing                   // a VIP in the prefix is not on this node
	ReasonListenerDown                 // a listener of this node takes no connections at a VIP
	ReasonDNSDown                      // this node does not answer DNS at a VIP
	ReasonDoorUnknown                  // not yet asked through the VIP
	ReasonAway                         // the site itself says that its route is not there, or not yet
	ReasonLeaving                      // the site's nodes are stopping
	ReasonFinishing                    // drained and withdrawn; connections are still open
	ReasonStalled                      // announced although not fit: this node stood still, what it knows is old
	reasonCount
)

var reasonTexts = [reasonCount]string{
	ReasonNone:           "in use",
	ReasonAssumedDown:    "assumed down",
	ReasonVIPDown:        "VIP unreachable from the other sites",
	ReasonBackendsDown:   "all backends down",
	ReasonBackendDown:    "backend down",
	ReasonNoAddress:      "no address of this family",
	ReasonNotPreferred:   "healthy, another site is preferred",
	ReasonWeightZero:     "weight 0",
	ReasonFailOpen:       "nothing else is fit, so it is used all the same (fail-open)",
	ReasonNotReady:       "listeners not open",
	ReasonNoEvidence:     "not measured up yet",
	ReasonUnreachedHere:  "this node does not reach the backends, others of its site do",
	ReasonSiteNotAllowed: "not announced from this site",
	ReasonNoPeers:        "no BGP peers at this site",
	ReasonNoPool:         "no backends at this site",
	ReasonDrained:        "drained by order",
	ReasonOrderedDown:    "down by order",
	ReasonOrderedUp:      "up by order, whatever the checks say",
	ReasonMinimum:        "kept in by the minimum of sites",
	ReasonBudget:         "held in by the removal budget",
	ReasonStopping:       "announced less preferred: this node is stopping",
	ReasonWarmingUp:      "warming up",
	ReasonFlapping:       "held down: withdrawn too often of late",
	ReasonStandby:        "standby: the other sites serve what is needed",
	ReasonStandbyRoute:   "standby: announced less preferred",
	ReasonPromoted:       "standby, promoted: the other sites serve less than is needed",
	ReasonUnanswered:     "draining: no longer answered, resolvers still know it",
	ReasonDepreferred:    "draining: announced less preferred",
	ReasonLastSites:      "announced less preferred although not fit: too few other sites serve it",
	ReasonCutOff:         "announced less preferred although not fit: too few sites are heard to know what the others do",
	ReasonSettling:       "announced less preferred although not fit, until it is known who else is leaving",
	ReasonTurn:           "announced less preferred although not fit: another site is leaving, or has just left",
	ReasonPanic:          "used although down: too few of its pool are up (panic)",
	ReasonVIPMissing:     "a VIP of it is not on this node",
	ReasonListenerDown:   "a listener takes no connections",
	ReasonDNSDown:        "DNS does not answer through the VIP",
	ReasonDoorUnknown:    "not probed through the VIP yet",
	ReasonAway:           "the site says that its route is not back yet",
	ReasonLeaving:        "the site is stopping",
	ReasonFinishing:      "drained: withdrawn, connections are finishing",
	ReasonStalled:        "announced less preferred although not fit: this node stood still a moment ago and looks again",
	ReasonMassFailure:    "held in: at least half of all sites failed at once, so the checks are distrusted",
}

// Keeps reports whether a site with this reason is answered with, a route announced.
func (r Reason) Keeps() bool {
	switch r {
	case ReasonNone, ReasonFailOpen, ReasonOrderedUp, ReasonMinimum, ReasonBudget, ReasonMassFailure, ReasonPanic:
		return true
	case ReasonStopping, ReasonStandbyRoute, ReasonPromoted, ReasonUnanswered, ReasonDepreferred,
		ReasonLastSites, ReasonCutOff, ReasonSettling, ReasonTurn, ReasonStalled:
		return true
	}
	return false
}

// onMerits reports whether a site with this reason is fit: by its verdicts or because an
// operator says so.
func (r Reason) onMerits() bool { return r == ReasonNone || r == ReasonOrderedUp }

// String returns the operator's text.
func (r Reason) String() string {
	if r < reasonCount {
		return reasonTexts[r]
	}
	return "unknown reason"
}

// MarshalText makes JSON carry the text.
func (r Reason) MarshalText() ([]byte, error) { return []byte(r.String()), nil }

// UnmarshalText reads what MarshalText wrote, so that the command line can
// read a node's answers; a text of another version is an error.
func (r *Reason) UnmarshalText(text []byte) error {
	for i, t := range reasonTexts {
		if t == string(text) {
			*r = Reason(i)
			return nil
		}
	}
	return fmt.Errorf("unknown reason %q", text)
}
