package cluster

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"sync"
	"time"
)

const (
	// maxAsks is how many calls of Ask are under way at a time.
	maxAsks = 8
	// askTimeout bounds a call of Ask whose context has no deadline.
	askTimeout = 5 * time.Second
	// maxQuestions is how many questions wait for the answerer.
	maxQuestions = 16
	// answerRate is how many questions are answered a second, answerBurst how many
	// at once.
	answerRate  = 20
	answerBurst = 20
)

// asks are the questions that this node waits for answers to.
type asks struct {
	mu      sync.Mutex // guards the rest
	calls   int
	pending map[uint64]pendingAnswer
}

// pendingAnswer is who is to answer, and where the answer goes. The channel has
// room for every answer that the call waits for.
type pendingAnswer struct {
	member string
	into   chan<- answer
}

type answer struct {
	member string
	text   []byte
}

// Ask puts a question of at most 4 KiB to members over TCP and returns their
// answers by name, each at most 64 KiB. It returns when all have answered or when
// ctx ends, after 5 s if ctx has no deadline. Who does not answer in time, is not
// present, does not answer at all or is of a version that knows no questions is
// missing, and so is this node itself. At most 8 calls are under way at a time;
// one more gets no answers at all. Safe for concurrent use.
func (n *Node) Ask(ctx context.Context, members []string, question []byte) map[string][]byte {
	answers := make(map[string][]byte)
	if len(question) > maxQuestion {
		n.meters.dropped.WithLabelValues(dropOversize).Inc()
		return answers
	}
	var peers []peer
	asked := make(map[string]bool)
	for _, name := range members {
		if p, ok := n.roster.find(name); ok && p.wire >= wireNow && !asked[name] {
			asked[name] = true
			peers = append(peers, p)
		}
	}
	if !n.asks.begin() {
		n.meters.dropped.WithLabelValues(dropQuestion).Inc()
		return answers
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	into := make(chan answer, len(peers))
	ids := make([]uint64, 0, len(peers))
	defer func() { n.asks.end(ids) }()
	for _, p := range peers {
		id := n.asks.expect(p.name, into)
		ids = append(ids, id)
		frame := appendMailFrame(nil, kindQuestion, mail{id: id, from: n.opt.Name, text: question})
		n.dispatch(dispatch{frame: frame, kind: kindQuestion, to: p})
	}
	for len(answers) < len(peers) {
		select {
		case a := <-into:
			answers[a.member] = a.text
		case <-ctx.Done():
			return answers
		case <-n.closed:
			return answers
		}
	}
	return answers
}

// begin counts a call in; it reports false if there are too many.
func (a *asks) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.calls >= maxAsks {
		return false
	}
	a.calls++
	return true
}

// expect notes that member is being asked and returns the question's number,
// which nobody can guess.
func (a *asks) expect(member string, into chan<- answer) uint64 {
	a.mu.Lock()
	defer a.mu.Unlock()
	for {
		id := rand.Uint64()
		if _, taken := a.pending[id]; !taken {
			a.pending[id] = pendingAnswer{member: member, into: into}
			return id
		}
	}
}

// end counts a call out and forgets what was not answered.
func (a *asks) end(ids []uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.calls--
	maps.DeleteFunc(a.pending, func(id uint64, _ pendingAnswer) bool {
		for _, mine := range ids {
			if id == mine {
				return true
			}
		}
		return false
	})
}

// settle hands an answer to whoever waits for it; it reports false if nobody does.
func (a *asks) settle(m mail) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.pending[m.id]
	if !ok || p.member != m.from {
		return false
	}
	delete(a.pending, m.id)
	p.into <- answer{member: m.from, text: bytes.Clone(m.text)} // there is room
	return true
}

// takeMail reads a question or an answer.
func (n *Node) takeMail(kind frameKind, m mail) {
	limit := maxAnswer
	if kind == kindQuestion {
		limit = maxQuestion
	}
	if len(m.text) > limit {
		n.meters.dropped.WithLabelValues(dropOversize).Inc()
		return
	}
	if kind == kindAnswer {
		if !n.asks.settle(m) {
			n.meters.dropped.WithLabelValues(dropAnswer).Inc()
		}
		return
	}
	if n.opt.Answer == nil {
		n.meters.dropped.WithLabelValues(dropQuestion).Inc()
		return
	}
	select {
	case n.questions <- m:
	default:
		n.meters.dropped.WithLabelValues(dropQuestion).Inc()
	}
}

// answerQuestions answers one question after the other, until ctx ends. What
// exceeds its rate is dropped, not put off: who asked will not wait.
func (n *Node) answerQuestions(ctx context.Context) {
	left, counted := float64(answerBurst), time.Now()
	for {
		var m mail
		select {
		case <-ctx.Done():
			return
		case m = <-n.questions:
		}
		now := time.Now()
		left = min(left+answerRate*now.Sub(counted).Seconds(), answerBurst)
		counted = now
		to, present := n.roster.find(m.from)
		if left < 1 || !present {
			n.meters.dropped.WithLabelValues(dropQuestion).Inc()
			continue
		}
		left--
		text := n.opt.Answer(m.from, m.text)
		if text == nil {
			continue
		}
		if len(text) > maxAnswer {
			n.meters.dropped.WithLabelValues(dropOversize).Inc()
			continue
		}
		frame := appendMailFrame(nil, kindAnswer, mail{id: m.id, from: n.opt.Name, text: text})
		n.dispatch(dispatch{frame: frame, kind: kindAnswer, to: to})
	}
}
