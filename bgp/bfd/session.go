package bfd

import (
	"time"
)

// Timing that the protocol fixes.
const (
	slowInterval = time.Second           // between packets while a session is not up (RFC 5880, section 6.8.3)
	urgentGap    = 10 * time.Millisecond // between packets that tell of changes: a peer that flips cannot make us flood

	// slack is the part of its interval that a periodic packet may go early, to share a system call with others.
	slack = 0.03
)

// Parameters are what the two sides negotiate about. Both intervals and the multiplier are required.
type Parameters struct {
	MinTx      time.Duration // we send no faster, once up
	MinRx      time.Duration // we ask to be sent no faster
	Multiplier uint8         // silent intervals after which the other side may call us dead
}

// A Cause says why a session left the state Up.
type Cause uint8

// The causes.
const (
	CauseNone      Cause = iota
	CauseSilence         // nothing was heard for the detection time
	CauseSignal          // the neighbour says that it does not hear us
	CausePeerAdmin       // the neighbour takes the session down on purpose: no evidence of a failure
	CauseOurAdmin        // we do
)

// Failure reports whether the path is in doubt, so that what depends on it must go (RFC 5882, section 3.2).
func (c Cause) Failure() bool { return c == CauseSilence || c == CauseSignal }

func (c Cause) String() string {
	return [...]string{
		"", "nothing was heard for the detection time", "the neighbor says that it does not hear us",
		"the neighbor took BFD down administratively", "BFD was taken down administratively here",
	}[c]
}

// A Session is one session of RFC 5880 in asynchronous mode, active role. Not safe for concurrent use. Its user calls
// Receive for every packet, and Expire and then Transmit whenever Due has come.
type Session struct {
	want        Parameters
	mine, yours uint32 // discriminators
	state       State
	peerState   State
	diag        Diag
	peerDiag    Diag
	since       time.Time
	cause       Cause // of the newest end of Up

	// What we advertise, and what is in force until a poll sequence is over.
	minTx, minRx   time.Duration
	usedTx, usedRx time.Duration

	// What the neighbour advertised last.
	peerTx, peerRx time.Duration
	peerMultiplier uint8
	peerDemand     bool

	polling   bool
	pollAgain bool // what is polled for changed meanwhile
	owesFinal bool
	urgent    bool // the next packet tells something new

	heard  time.Time // newest packet; zero = none since the neighbour was last lost
	sentAt time.Time // newest periodic packet
	nextTx time.Time
}

// NewSession returns a session that is down and sends its first packet at once. mine is its discriminator: not 0, and no
// other session's on this machine.
func NewSession(p Parameters, mine uint32, now time.Time) *Session {
	s := &Session{want: p, mine: mine, state: Down, peerState: Down, since: now, nextTx: now}
	s.forget()
	s.slow()
	return s
}

// State returns the session's own state.
func (s *Session) State() State { return s.state }

// Receive takes in a packet that belongs to this session.
func (s *Session) Receive(p Packet, now time.Time) {
	s.yours, s.peerState, s.peerDiag, s.peerDemand = p.Mine, p.State, p.Diag, p.Demand
	s.peerTx, s.peerMultiplier = p.DesiredMinTx, p.Multiplier
	s.heard = now
	if p.Final && s.polling {
		s.endPoll()
	}
	if p.RequiredMinRx != s.peerRx {
		faster := p.RequiredMinRx < s.peerRx || s.peerRx == 0
		s.peerRx = p.RequiredMinRx
		if faster {
			s.hurry(s.sentAt.Add(s.txInterval()))
		}
	}
	if s.state == AdminDown {
		return
	}
	s.react(p.State, now)
	s.owesFinal = s.owesFinal || p.Poll
}

// react is the state machine of RFC 5880, section 6.8.6.
func (s *Session) react(theirs State, now time.Time) {
	switch {
	case theirs == AdminDown && s.state != Down:
		s.fall(DiagNeighbourDown, CausePeerAdmin, now)
	case theirs == AdminDown:
	case s.state == Down && theirs == Down:
		s.enter(Init, DiagNone, now)
	case s.state == Down && theirs == Init, s.state == Init && theirs >= Init:
		s.enter(Up, DiagNone, now)
		s.negotiate()
	case s.state == Up && theirs == Down:
		s.fall(DiagNeighbourDown, CauseSignal, now)
	}
}

// Expire notices that the neighbour has been silent for too long.
func (s *Session) Expire(now time.Time) {
	limit := s.detection()
	if limit == 0 || now.Before(s.heard.Add(limit)) {
		return
	}
	if s.state == Init || s.state == Up {
		s.fall(DiagTimeExpired, CauseSilence, now)
	}
	s.forget()
}

// Transmit returns the packet that is due, or nearly, if one is; call it until none is. random is in [0, 1).
func (s *Session) Transmit(now time.Time, random float64) (Packet, bool) {
	if s.owesFinal {
		s.owesFinal = false
		p := s.packet()
		p.Final = true
		return p, true
	}
	if s.quiet() || now.Before(s.nextTx.Add(-s.early())) {
		return Packet{}, false
	}
	// 75 to 100 percent of the interval, or to 90 with a multiplier of 1 (RFC 5880, section 6.8.7); what may go
	// early starts later, so that the 75 percent hold.
	low, high := 0.75+slack, 1.0
	if s.want.Multiplier == 1 {
		high = 0.9
	}
	s.sentAt, s.urgent = now, false
	s.nextTx = now.Add(time.Duration((low + (high-low)*random) * float64(s.txInterval())))
	p := s.packet()
	p.Poll = s.polling
	return p, true
}

// Due returns when Expire or Transmit has something to do; the zero time means never.
func (s *Session) Due() time.Time {
	var due time.Time
	if limit := s.detection(); limit > 0 {
		due = s.heard.Add(limit)
	}
	switch {
	case s.owesFinal:
		return s.since // at once
	case s.quiet():
	case due.IsZero() || s.nextTx.Before(due):
		due = s.nextTx
	}
	return due
}

// early is how long before its time a periodic packet may go; one that tells something new keeps its distance.
func (s *Session) early() time.Duration {
	if s.urgent {
		return 0
	}
	return time.Duration(slack * float64(s.txInterval()))
}

// Reconfigure changes the parameters; a session that is up stays up and polls.
func (s *Session) Reconfigure(p Parameters) {
	s.want = p
	if s.state == Up {
		s.negotiate()
	}
}

// Disable takes the session down on purpose, which tells the neighbour nothing about the path.
func (s *Session) Disable(now time.Time) {
	if s.state != AdminDown {
		s.leave(AdminDown, DiagAdminDown, CauseOurAdmin, now)
	}
}

// Enable ends Disable.
func (s *Session) Enable(now time.Time) {
	if s.state == AdminDown {
		s.enter(Down, DiagNone, now)
	}
}

// quiet reports whether no periodic packets may be sent (RFC 5880, section 6.8.7).
func (s *Session) quiet() bool {
	demand := s.peerDemand && s.state == Up && s.peerState == Up && !s.polling && !s.urgent
	return s.peerRx == 0 || demand
}

func (s *Session) txInterval() time.Duration { return max(s.usedTx, s.peerRx) }

// detection is how long the neighbour may be silent; 0 = it was not heard.
func (s *Session) detection() time.Duration {
	if s.heard.IsZero() {
		return 0
	}
	return time.Duration(s.peerMultiplier) * max(s.usedRx, s.peerTx)
}

func (s *Session) packet() Packet {
	return Packet{
		Diag: s.diag, State: s.state, Multiplier: s.want.Multiplier, Mine: s.mine, Yours: s.yours,
		DesiredMinTx: s.minTx, RequiredMinRx: s.minRx,
	}
}

func (s *Session) enter(state State, diag Diag, now time.Time) {
	s.state, s.diag, s.since = state, diag, now
	s.urgent = true
	s.hurry(now)
}

// fall goes to Down.
func (s *Session) fall(diag Diag, cause Cause, now time.Time) { s.leave(Down, diag, cause, now) }

func (s *Session) leave(state State, diag Diag, cause Cause, now time.Time) {
	if s.state == Up {
		s.cause = cause
	}
	s.enter(state, diag, now)
	s.slow()
}

// hurry has a packet sent not later than at the given time, but not within urgentGap of the last.
func (s *Session) hurry(at time.Time) {
	if soonest := s.sentAt.Add(urgentGap); at.Before(soonest) {
		at = soonest
	}
	if at.Before(s.nextTx) {
		s.nextTx = at
	}
}

// slow is for a session that is not up: it sends once a second, but would hear as fast as configured.
func (s *Session) slow() {
	s.minTx, s.minRx = max(s.want.MinTx, slowInterval), s.want.MinRx
	s.usedTx, s.usedRx = s.minTx, s.minRx
	s.polling, s.pollAgain = false, false
}

// negotiate puts the wanted parameters in force: what makes packets rarer, or the neighbour's be missed earlier, only
// after the neighbour has confirmed it (RFC 5880, section 6.8.3).
func (s *Session) negotiate() {
	s.minTx, s.minRx = s.want.MinTx, s.want.MinRx
	if s.minTx < s.usedTx {
		s.usedTx = s.minTx
		s.hurry(s.sentAt.Add(s.txInterval()))
	}
	s.usedRx = max(s.usedRx, s.minRx)
	s.pollAgain = s.polling
	s.polling, s.urgent = true, true
}

func (s *Session) endPoll() {
	if s.pollAgain {
		s.pollAgain = false
		return
	}
	s.polling = false
	s.usedTx, s.usedRx = s.minTx, s.minRx
}

// forget drops what a neighbour said that is not heard any more. RFC 5880, section 6.8.1: the discriminator becomes 0;
// what it asked for is unknown again.
func (s *Session) forget() {
	s.yours, s.heard = 0, time.Time{}
	s.peerRx, s.peerTx, s.peerMultiplier, s.peerDemand = time.Microsecond, 0, 0, false
	s.peerState = Down
}
