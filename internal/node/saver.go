package node

import (
	"context"
	"errors"
	"time"
)

// saveAgain is how long a saver waits after the disk refused.
const saveAgain = 5 * time.Second

// saver writes the newest content of one state file in the background, so that
// a slow disk never delays a decision. Older ones that were not yet written are
// dropped; one that the disk refuses is tried again until it is replaced.
type saver struct {
	state *stateDir
	name  string
	next  chan content // capacity 1
	// saved receives the mark of what is on disk; capacity 1, the newest wins.
	saved chan uint64
}

// content is what a file is to hold, and the mark by which its writer knows it.
type content struct {
	data []byte
	mark uint64
}

func newSaver(state *stateDir, name string) *saver {
	return &saver{state: state, name: name, next: make(chan content, 1), saved: make(chan uint64, 1)}
}

// put replaces what is to be written. Only one goroutine may call it.
func (s *saver) put(data []byte, mark uint64) {
	for {
		select {
		case s.next <- content{data, mark}:
			return
		default:
		}
		select {
		case <-s.next:
		default:
		}
	}
}

// Run writes until ctx ends, and then what is left.
func (s *saver) Run(ctx context.Context) error {
	var refused *content
	again := time.NewTimer(saveAgain)
	defer again.Stop()
	for {
		var c content
		select {
		case c = <-s.next:
		case <-again.C:
			if refused == nil {
				continue
			}
			c = *refused
		case <-ctx.Done():
			select {
			case c = <-s.next:
				s.write(c)
			default:
				if refused != nil {
					s.write(*refused)
				}
			}
			return nil
		}
		if refused = nil; !s.write(c) {
			refused = &c
			again.Reset(saveAgain)
		}
	}
}

// write makes c durable and says so.
func (s *saver) write(c content) bool {
	err := s.state.replace(s.name, c.data)
	if errors.Is(err, errFrozen) {
		return false
	}
	s.state.note(s.name, err)
	if err != nil {
		return false
	}
	s.state.catchUp()
	select {
	case <-s.saved:
	default:
	}
	s.saved <- c.mark
	return true
}
