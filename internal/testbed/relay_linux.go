package testbed

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tunMTU     = 1500
	relayKept  = 16 << 10               // packets under way in one direction; more are lost
	relaySlack = 200 * time.Microsecond // by which a packet may be early, to go with the one before it
)

// relay carries packets between two TUN devices, each after a delay, and loses some. The
// devices go when it is closed.
type relay struct {
	delay time.Duration
	loss  float64
	ends  [2]*os.File
	done  sync.WaitGroup
}

// relayEnds are the namespaces and names of a relay's devices.
type relayEnds struct{ ns1, dev1, ns2, dev2 string }

// held is a packet that is on its way.
type held struct {
	due  time.Time
	data []byte
}

// newRelay makes the two devices and carries packets from then on.
func newRelay(e relayEnds, delay time.Duration, loss float64) (*relay, error) {
	r := &relay{delay: delay, loss: loss}
	var err error
	if r.ends[0], err = openTUN(e.ns1, e.dev1); err != nil {
		return nil, err
	}
	if r.ends[1], err = openTUN(e.ns2, e.dev2); err != nil {
		return nil, errors.Join(err, r.ends[0].Close())
	}
	for i := range r.ends {
		way, free := make(chan held, relayKept), make(chan []byte, relayKept)
		r.done.Go(func() { r.read(r.ends[i], way, free, uint64(i)) })
		r.done.Go(func() { r.write(r.ends[1-i], way, free) })
	}
	return r, nil
}

// close ends the relay; its devices go.
func (r *relay) close() error {
	err := errors.Join(r.ends[0].Close(), r.ends[1].Close())
	r.done.Wait()
	return err
}

// read takes packets from an end until it is closed. Chance is the same in each run.
func (r *relay) read(from *os.File, way chan<- held, free <-chan []byte, seed uint64) {
	defer close(way)
	buf := make([]byte, tunMTU)
	for {
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		if seed++; chance(seed) < r.loss {
			continue
		}
		select {
		case way <- held{time.Now().Add(r.delay), buf[:n]}:
		default:
			continue
		}
		select {
		case buf = <-free:
			buf = buf[:tunMTU]
		default:
			buf = make([]byte, tunMTU)
		}
	}
}

// write gives packets to the other end when they are due. One that it refuses is lost.
func (r *relay) write(to *os.File, way <-chan held, free chan<- []byte) {
	for p := range way {
		if wait := time.Until(p.due); wait > relaySlack {
			time.Sleep(wait)
		}
		to.Write(p.data)
		select {
		case free <- p.data:
		default:
		}
	}
}

// chance is from 0 to 1, without 1; the numbers of successive n look like drawn ones
// (splitmix64).
func chance(n uint64) float64 {
	n *= 0x9e3779b97f4a7c15
	n = (n ^ n>>30) * 0xbf58476d1ce4e5b9
	n = (n ^ n>>27) * 0x94d049bb133111eb
	return float64((n^n>>31)>>11) / (1 << 53)
}

// openTUN makes a TUN device in a namespace.
func openTUN(ns, dev string) (*os.File, error) {
	var file *os.File
	err := inNamespace(ns, func() (err error) {
		file, err = makeTUN(dev)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("testbed: tunnel %s in %s: %w", dev, ns, err)
	}
	return file, nil
}

func makeTUN(dev string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("opening /dev/net/tun: %w", err)
	}
	request, err := unix.NewIfreq(dev)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), dev), nil
}

// inNamespace calls f on a thread that is in a network namespace, and that ends with it.
func inNamespace(ns string, f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread must not serve others
		err := enter(ns)
		if err == nil {
			err = f()
		}
		done <- err
	}()
	return <-done
}

// enter puts the calling thread into a network namespace.
func enter(ns string) error {
	h, err := os.Open(filepath.Join(nsFolder, ns))
	if err != nil {
		return err
	}
	defer h.Close()
	if err := unix.Setns(int(h.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("entering namespace %s: %w", ns, err)
	}
	return nil
}
