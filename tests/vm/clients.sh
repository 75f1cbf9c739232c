# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
#
# Programs that people use: git, tar with extended attributes and ACLs, SQLite with two writers,
# LMDB with MDB_WRITEMAP. What they wrote is whole, and again after a remount.
# timeout: 600
. "${0%/*}/lib.sh"

cat >lmdb.py <<'END'
"""lmdb.py fill|verify DIR: 20,000 records through a shared writable map, in 40 transactions."""
import ctypes, hashlib, sys

class Val(ctypes.Structure):
    _fields_ = [('size', ctypes.c_size_t), ('data', ctypes.c_char_p)]

lmdb = ctypes.CDLL('liblmdb.so.0')
lmdb.mdb_env_set_mapsize.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
lmdb.mdb_strerror.restype = ctypes.c_char_p
WRITEMAP, RDONLY = 0x80000, 0x20000

def call(name, *arguments):
    error = getattr(lmdb, 'mdb_' + name)(*arguments)
    assert error == 0, (name, lmdb.mdb_strerror(error).decode())

def begin(flags):
    txn = ctypes.c_void_p()
    call('txn_begin', env, None, flags, ctypes.byref(txn))
    call('dbi_open', txn, None, 0, ctypes.byref(dbi))
    return txn

def record(n):
    key = b'%08d' % (n * 7919 % 20000)
    value = hashlib.sha256(key).hexdigest().encode() * (1 + n % 40)
    return key, value

env, dbi = ctypes.c_void_p(), ctypes.c_uint()
call('env_create', ctypes.byref(env))
call('env_set_mapsize', env, 128 << 20)
fill = sys.argv[1] == 'fill'
call('env_open', env, sys.argv[2].encode(), WRITEMAP if fill else RDONLY, 0o644)
if fill:
    for first in range(0, 20000, 500):
        txn = begin(0)
        for n in range(first, first + 500):
            key, value = record(n)
            call('put', txn, dbi, ctypes.byref(Val(len(key), key)), ctypes.byref(Val(len(value), value)), 0)
        call('txn_commit', txn)
else:
    txn = begin(RDONLY)
    for n in range(20000):
        key, value = record(n)
        found = Val()
        call('get', txn, dbi, ctypes.byref(Val(len(key), key)), ctypes.byref(found))
        assert ctypes.string_at(found.data, found.size) == value, key
lmdb.mdb_env_close(env)
END

# Text in 90 files, in directories two deep.
mkdir -p sources/{a,b,c}/{x,y,z}
awk 'BEGIN {
	for (n = 0; n < 90; n++) {
		file = sprintf("sources/%c/%c/%d.txt", 97 + n % 3, 120 + n / 3 % 3, n)
		for (line = 0; line < n * n / 8 + 1; line++)
			print "line", line, "of", n, ":", (line * 7919 + n) % 1009, (line * n) % 31 >file
		close(file)
	}
}'

export HOME=$PWD GIT_CONFIG_NOSYSTEM=1
git config --global user.name rdax
git config --global user.email rdax@localhost
git config --global init.defaultBranch main
git config --global gc.auto 0

repository() {
	cp -r sources "$MNT/work"
	must git -C "$MNT/work" init -q
	must git -C "$MNT/work" add .
	must git -C "$MNT/work" commit -q -m first
	must git -C "$MNT/work" mv a moved
	must rm -r "$MNT/work/c/x"
	printf 'more\n' >>"$MNT/work/b/x/1.txt"
	must git -C "$MNT/work" commit -q -a -m second
	must git -C "$MNT/work" repack -q -a -d
	# By the transport, not by links.
	must git clone -q --no-local "$MNT/work" "$MNT/clone"
	must git clone -q --bare "$MNT/work" "$MNT/bare"
}
check_repository() {
	local name
	for name in work clone bare; do
		must git -C "$MNT/$name" fsck --full --strict
	done
	same 'what git status says' '' "$(git -C "$MNT/work" status --porcelain)$(git -C "$MNT/clone" status --porcelain)"
	same 'the commit of the clone' "$(git -C "$MNT/work" rev-parse HEAD)" "$(git -C "$MNT/clone" rev-parse HEAD)"
	must git -C "$MNT/work" diff --quiet HEAD
	must diff -r sources/a "$MNT/clone/moved"
}

# state DIR: names, kinds, modes, owners, times, links, sizes, attributes and ACLs.
state() {
	(
		cd "$1"
		find . -printf '%P %y %m %U:%G %T@ %n %s %l\n' | sed -E 's/^( d .*) [0-9]+ $/\1/; s/( d .* [0-9]+) [0-9]+ $/\1/' | sort
		find . -type f -exec sha256sum {} + | sort -k 2
		find . -print0 | sort -z | xargs -0 getfattr -h -d -m - -e hex | grep -v '^$'
	)
}
# pack DIR ARCHIVE, unpack ARCHIVE DIR
pack() { must tar -C "$1" --sparse --format=posix --xattrs --xattrs-include='*' --acls --numeric-owner -cf "$2" .; }
unpack() {
	mkdir "$2"
	must tar -C "$2" --xattrs --xattrs-include='*' --acls --numeric-owner -xpf "$1"
}
# A tree in memory, a copy of it on rdax, and a copy of that.
archive() {
	local n
	mkdir -p tree/dir/sub
	cp -r sources/a tree/dir/
	ln -s ../nowhere tree/dir/link
	ln tree/dir/a/x/0.txt tree/dir/sub/hard
	mkfifo -m 0640 tree/fifo
	mknod tree/null c 1 3
	truncate -s 16M tree/sparse
	printf end >>tree/sparse
	for n in 1 2 3; do
		setfattr -n "user.name$n" -v "value $n" tree/dir/a/x/0.txt
	done
	setfattr -n trusted.large -v "$(head -c 3000 /dev/zero | tr '\0' x)" tree/dir
	must setfacl -m u:1000:rwx,g:2000:r-x tree/dir/a/y/3.txt
	must setfacl -d -m u:1000:rwx,g:2000:r-x tree/dir/sub
	chown -h 1000:2000 tree/dir/link tree/dir/a/z/6.txt
	chmod 4755 tree/dir/a/z/6.txt
	must setcap cap_net_raw+ep tree/dir/a/z/15.txt
	touch -h -d '2500-01-02 03:04:05.123456789' tree/dir/link tree/dir/a
	pack tree "$MNT/tree.tar"
	unpack "$MNT/tree.tar" "$MNT/first"
	pack "$MNT/first" "$MNT/first.tar"
	unpack "$MNT/first.tar" "$MNT/second"
}
check_archive() {
	state tree >expected
	[ "$(grep -cE '^(user|trusted|security|system)\.' expected)" = 10 ] || fail "not the attributes that there should be"
	state "$MNT/first" >first
	must diff expected first
	state "$MNT/second" >second
	must diff expected second
	[ "$(stat -c %b "$MNT/second/sparse")" -le 64 ] || fail "the hole of the copy has blocks"
}

# Two writers at a time, in a database with a log and in one with a journal.
sql() { sqlite3 -batch -bail -cmd '.timeout 600000' "$@"; }
schema='CREATE TABLE entries (writer INTEGER, n INTEGER, value TEXT, PRIMARY KEY (writer, n));
	CREATE INDEX by_value ON entries (value);'
rows='SELECT writer, count(*), sum(n) FROM entries GROUP BY writer;'
databases() {
	local mode pids=() pid n
	for n in 1 2; do
		awk -v writer=$n 'BEGIN {
			for (i = 0; i < 60; i++) {
				print "BEGIN IMMEDIATE;"
				for (k = 0; k < 5; k++)
					printf "INSERT INTO entries VALUES (%d, %d, hex(randomblob(300)));\n", writer, 5 * i + k
				if (i % 6 == 5) printf "DELETE FROM entries WHERE writer = %d AND n %% 4 = 1 AND n < %d;\n", writer, 5 * i
				print i % 10 == 9 ? "ROLLBACK;" : "COMMIT;"
			}
		}' >"writer$n.sql"
	done
	sql :memory: "$schema" '.read writer1.sql' '.read writer2.sql' "$rows" >counts
	for mode in WAL DELETE; do
		must sql "$MNT/$mode.db" "PRAGMA journal_mode=$mode; $schema"
		for n in 1 2; do
			sql "$MNT/$mode.db" 'PRAGMA synchronous=FULL;' ".read writer$n.sql" >"$mode$n.log" 2>&1 &
			pids+=($!)
		done
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || fail "a writer of SQLite failed: $(cat ./*.log)"
	done
}
check_databases() {
	local mode
	for mode in WAL DELETE; do
		same "what SQLite finds in $mode.db" ok "$(sql "$MNT/$mode.db" 'PRAGMA integrity_check;')"
		same "the rows of $mode.db" "$(<counts)" "$(sql "$MNT/$mode.db" "$rows")"
	done
	[ "$(wc -l <counts)" = 2 ] || fail "no rows are expected"
}

step() {
	local start=$SECONDS
	"$@"
	echo "$1: $((SECONDS - start)) s"
}
step repository
step check_repository
step archive
step check_archive
step databases
step check_databases
mkdir "$MNT/lmdb"
step must python3 lmdb.py fill "$MNT/lmdb"
must umount "$MNT"
must mount -t rdax "$PMEM" "$MNT"
step check_repository
step check_archive
step check_databases
step must python3 lmdb.py verify "$MNT/lmdb"
