package steer

import (
	"sync"
	"testing"
)

func TestBoard(t *testing.T) {
	var b Board
	if b.Load() != nil {
		t.Fatal("the zero Board holds a plan")
	}
	wake, stop := b.Watch()
	other, stopOther := b.Watch()
	one, two := &Plan{Generation: 1}, &Plan{Generation: 2}
	b.Publish(one)
	b.Publish(two) // not blocked by a watcher that has not looked yet
	<-wake
	if got := b.Load(); got != two {
		t.Errorf("woken to %+v, want the newest", got)
	}
	select {
	case <-wake:
		t.Error("woken twice for coalesced plans")
	default:
	}
	stop()
	stop() // harmless
	b.Publish(one)
	select {
	case <-wake:
		t.Error("woken after the watch ended")
	default:
	}
	<-other
	stopOther()
}

func TestBoardConcurrently(t *testing.T) {
	var b Board
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 100 {
				wake, stop := b.Watch()
				if p := b.Load(); p != nil && p.Generation == 0 {
					t.Error("half a plan")
				}
				select {
				case <-wake:
				default:
				}
				stop()
			}
		})
	}
	for g := range uint64(100) {
		b.Publish(&Plan{Generation: g + 1})
	}
	group.Wait()
	if got := b.Load().Generation; got != 100 {
		t.Errorf("generation %d, want the last", got)
	}
}
