/* Claim, lease, settle, give back, rescue, leave: two servers, two tasks, three attempts.

   A step is what one statement of runtime/store does once it has its locks; between two steps anything else may happen,
   so that a pause is simply that others go on. What a transaction has written and not committed is seen by nobody, so
   it is applied by the step that commits. README.md tells what is left out. The faulty variants are switched on by
   ONE_STATEMENT_RESCUE, REUSED_LEASE_NUMBER and LEAVE_DURING_CLAIM. */

#define TASKS 2
#define ATTEMPTS 3
#define SERVERS 3 /* incarnations: two from the start, and the fresh one that follows whichever ends first */
#define LEASES 6  /* ids, two for each server; used again when neither the database nor the server remembers them */

#ifndef SLOTS
#define SLOTS 2 /* attempts that a server holds at most; 1 or 2 */
#endif

/* What may go wrong in a run, in all. FAULTS and RETRIES cost attempts, so their sum is ATTEMPTS - 1 at most. */
#ifndef FAULTS
#define FAULTS 1 /* a server dies, pauses for longer than its lease, or is asked to leave */
#endif
#ifndef RETRIES
#define RETRIES 1 /* attempts of each task that end with another to follow, at their worker's death or by an error */
#endif
#ifndef CRASHES
#define CRASHES 0 /* of PostgreSQL */
#endif
#ifndef CUTS
#define CUTS 0 /* answers of PostgreSQL that are lost */
#endif
#ifndef RETURNS
#define RETURNS 0 /* attempts that are given back unstarted */
#endif
#ifndef LAST
#define LAST (ATTEMPTS + 1) /* the attempt from which on the loss of its server ends a task */
#endif

/* the tables (0001_tables.sql), as committed; tasks and servers count from 0, leases and attempts from 1 */

typedef Lease {
    byte server; /* plus 1; 0: no such row */
    byte attempt[TASKS]; /* 0: not in it */
    bit locked;
    bit unflushed; /* its claim is committed, but not flushed */
}

bit heartbeat[SERVERS];
bit shared[SERVERS];   /* its row is locked for key share, by a claim */
bit deleting[SERVERS]; /* its row is locked by whoever deletes it */
byte ready[TASKS];     /* the attempt that stands in line; 0: none */
bit picked[TASKS];     /* its row in line is locked by a claim */
Lease lease[LEASES + 1];
byte result[TASKS];    /* the attempt that ended the task; 0: none */
byte closed[TASKS];    /* rows of the table attempt: a bit for each */
bit epoch;             /* changes when PostgreSQL crashes: every open transaction is gone */

/* what servers remember, and what may still go wrong */

typedef Slot {
    byte lease; /* 0: free */
    byte task;
    byte attempt;
    byte outcome;
    bit recorded; /* known to the model alone: an answer was lost, but this server's outcome stands */
}
typedef Memory {
    Slot slot[2];
    byte asked; /* the lease of a claim that has not been answered */
    bit doubtful; /* no answer will come */
    bit draining;
    bit settling; /* a settlement or a return is under way: it goes on when its server dies */
}
#define RUNNING 0
#define DONE 1
#define AGAIN 2 /* failed, to be retried, or its worker died */
#define BACK 3  /* never started, to be given back */

Memory memory[SERVERS];
bit born[SERVERS];
bit dead[SERVERS];
bit rescuing;
byte faults = FAULTS, crashes = CRASHES, cuts = CUTS, returns = RETURNS;
#ifdef REUSED_LEASE_NUMBER
byte sequence = 1, flushed_sequence = 1;
#define ID_LEFT (sequence <= LEASES)
#else
#define ID_LEFT true
#endif

#define ALL_ENDED (result[0] && result[1])
#define HAS_ATTEMPT(t, a) ((closed[t] >> (a)) & 1)
#define FREE_SLOTS(s) (SLOTS - (memory[s].slot[0].lease > 0) - (memory[s].slot[1].lease > 0))
#define HELD_BY(s, l) (memory[s].slot[0].lease == (l) || memory[s].slot[1].lease == (l))
#define READY(t) (ready[t] && !picked[t])
#define IN_LINE (READY(0) || READY(1))
#define NOTHING_HELD (FREE_SLOTS(0) + FREE_SLOTS(1) + FREE_SLOTS(2) == SERVERS * SLOTS)
#define ALL_NEW (ready[0] == 1 && ready[1] == 1 && NOTHING_HELD) /* the tasks are alike still */

#define HAS_ROW(t, a) (result[t] == (a) || HAS_ATTEMPT(t, a))
#define NOBODY_CLAIMS (!shared[0] && !shared[1] && !shared[2])
#define STILL_OPEN(t, a) ((a) && !result[t] && !HAS_ATTEMPT(t, a))

#define MAY_LEAVE(s) (FREE_SLOTS(s) == SLOTS)
#define HAS_LEASES(s) (lease[2 * (s) + 1].server || lease[2 * (s) + 2].server)
#define CAN_BE_LOCKED(s) (!shared[s] && !deleting[s]) /* the heartbeat row, for update */

/* what a rescue goes by: the rows as they are once it has every lock, or as they were before it waited */
#ifdef ONE_STATEMENT_RESCUE
#define TAKES(l) (lease[l].server == victim + 1 && ((old_leases >> (l)) & 1))
#define HAS_ENDED(t) ((old_results >> (t)) & 1)
#else
#define TAKES(l) (lease[l].server == victim + 1)
#define HAS_ENDED(t) result[t]
#endif

/* The servers of the start are alike: what goes wrong first goes wrong with the first. */
#define LIVES(s) (born[s] && heartbeat[s] && !dead[s])
#define UNHARMED(s) (LIVES(s) && !deleting[s] && !memory[s].draining)
#define MAY_FAIL(s) (LIVES(s) && ((s) != 1 || !UNHARMED(0) || !UNHARMED(1)))

/* scratch of one step, no part of the state */
hidden byte i, j, k, n;
hidden byte no_orphan, one_owner, one_outcome_per_attempt, what_we_recorded_is_not_lost, every_task_ended;

/* the properties, looked at after every commit and every crash */

inline check() {
    i = 0;
    do
    :: i < TASKS ->
        n = (ready[i] > 0);
        j = 1;
        do
        :: j <= LEASES ->
            if
            :: lease[j].server && lease[j].attempt[i] && !HAS_ATTEMPT(i, lease[j].attempt[i]) -> n++
            :: else
            fi;
            j++
        :: else -> break
        od;
        no_orphan = (result[i] || n > 0);
        assert(no_orphan);
        one_owner = (result[i] || n < 2);
        assert(one_owner);
        one_outcome_per_attempt = (!result[i] || (closed[i] >> result[i]) == 0);
        assert(one_outcome_per_attempt);
        i++
    :: else -> break
    od;
    j = 1;
    do
    :: j <= LEASES ->
        no_orphan = (!lease[j].server || heartbeat[lease[j].server - 1]); /* else nobody would ever rescue it */
        assert(no_orphan);
        j++
    :: else -> break
    od;
    j = 0
}

/* a commit that is not asynchronous takes all earlier ones to the disk */
inline flush() {
    j = 1;
    do
    :: j <= LEASES -> lease[j].unflushed = 0; j++
    :: else -> break
    od;
#ifdef REUSED_LEASE_NUMBER
    flushed_sequence = sequence;
#endif
    j = 0
}

inline forget_lease(l) {
    lease[l].server = 0;
    lease[l].attempt[0] = 0;
    lease[l].attempt[1] = 0;
    lease[l].locked = 0;
    lease[l].unflushed = 0;
}

inline line_up(t, a) { /* line_up, 0002_lines.sql; a delay is over at once */
    one_owner = (ready[t] == 0);
    assert(one_owner);
    ready[t] = a;
}

inline new_lease_id(s) {
#ifdef REUSED_LEASE_NUMBER
    memory[s].asked = sequence;
    sequence++;
#else
    j = 2 * s + 1;
    if
    :: lease[j].server || HELD_BY(s, j) -> j++
    :: else
    fi;
    assert(!lease[j].server && !HELD_BY(s, j));
    memory[s].asked = j;
#endif
}

inline clear_slot(s, k) {
    memory[s].slot[k].lease = 0;
    memory[s].slot[k].task = 0;
    memory[s].slot[k].attempt = 0;
    memory[s].slot[k].outcome = 0;
    memory[s].slot[k].recorded = 0
}

/* the incarnation is over, what it held is forgotten: its host starts a fresh one (register.sql) */
inline over(s) {
    dead[s] = 1;
    memory[s].draining = 0;
    if
    :: !memory[s].settling -> clear_slot(s, 0); clear_slot(s, 1)
    :: else
    fi;
    printf("server %d is over\n", s);
    if
    :: !born[2] -> born[2] = 1; heartbeat[2] = 1
    :: else
    fi
}

/* claim, 0004_claim.sql */

#define MAY_CLAIM(s) (!dead[s] && !memory[s].draining && !memory[s].asked && FREE_SLOTS(s))
#define ITS_CLIENT_WAITS (!dead[me] && memory[me].asked == id && !memory[me].doubtful)

proctype Claimer(byte me) {
    byte mine; /* tasks: a bit for each */
    byte id;
    bit era;

end:
    do
    /* perform 1 from heartbeat ... for key share finds no row: QT001 */
    :: d_step { !ALL_ENDED && born[me] && !dead[me] && !heartbeat[me] && !memory[me].draining -> over(me) }

    /* the row is locked; head, picked: for update skip locked */
    :: atomic {
            MAY_CLAIM(me) && IN_LINE && heartbeat[me] && !deleting[me] && ID_LEFT ->
            if
            :: READY(0) -> mine = 1
            :: READY(1) && !(ALL_NEW && READY(0)) -> mine = 2
            :: READY(0) && READY(1) && FREE_SLOTS(me) == 2 -> mine = 3
            fi;
            skip;
            d_step {
                shared[me] = 1;
                new_lease_id(me);
                id = memory[me].asked;
                printf("server %d claims tasks %d (a bit for each) as lease %d: rows locked\n", me, mine, id);
                picked[0] = picked[0] | (mine & 1);
                picked[1] = picked[1] | (mine >> 1);
                era = epoch
            }
        }
        {
            if
            :: d_step { /* insert into lease; an asynchronous commit */
                    true ->
                    j = id;
                    lease[j].server = me + 1;
                    lease[j].unflushed = (crashes > 0);
                    i = 0;
                    do
                    :: i < TASKS && ((mine >> i) & 1) ->
                        lease[j].attempt[i] = ready[i];
                        if
                        :: ITS_CLIENT_WAITS ->
                            k = (memory[me].slot[0].lease > 0);
                            memory[me].slot[k].lease = j;
                            memory[me].slot[k].task = i;
                            memory[me].slot[k].attempt = ready[i];
                        :: else
                        fi;
                        ready[i] = 0;
                        picked[i] = 0;
                        i++
                    :: i < TASKS && !((mine >> i) & 1) -> i++
                    :: else -> break
                    od;
                    if
                    :: dead[me] || ITS_CLIENT_WAITS -> memory[me].asked = 0
                    :: else
                    fi;
                    shared[me] = 0;
                    printf("server %d: the claim of lease %d is committed\n", me, j);
                    check();
                    mine = 0;
                    id = 0;
                    era = 0
                }
            :: d_step { /* the session ends with its process */
                    dead[me] ->
                    i = 0;
                    do
                    :: i < TASKS ->
                        if
                        :: (mine >> i) & 1 -> picked[i] = 0
                        :: else
                        fi;
                        i++
                    :: else -> break
                    od;
                    memory[me].asked = 0;
                    shared[me] = 0;
                    printf("server %d: its claim ends with it\n", me);
                    mine = 0;
                    id = 0;
                    era = 0
                }
            fi
        } unless {
            d_step { era != epoch -> memory[me].doubtful = (memory[me].asked == id); mine = 0; id = 0; era = 0 }
        }
    od
}

/* what a server does with what it holds */

#define SETTLES(k) (memory[me].slot[k].lease && memory[me].slot[k].outcome != BACK)
#define CAN_BE_SETTLED(k) (SETTLES(k) && !lease[memory[me].slot[k].lease].locked)
#define GOES_BACK(k) (memory[me].slot[k].lease && memory[me].slot[k].outcome == BACK)
#define RUNS(k) (memory[me].slot[k].lease && memory[me].slot[k].outcome == RUNNING)
#define KEPT(k) (memory[me].slot[k].lease && !((batch >> (k)) & 1)) /* not in this batch */
#define LEFT_OPEN(l) ((KEPT(0) && memory[me].slot[0].lease == (l)) || (KEPT(1) && memory[me].slot[1].lease == (l)))

#define STILL_HELD(k) \
    ((memory[me].slot[k].lease == first && (held & 1)) || (memory[me].slot[k].lease == second && (held & 2)))

/* the first statement of settle: select from lease ... for update; waits for whoever has the row */
inline lock_lease(l, mark) {
    if
    :: lease[l].server == me + 1 -> lease[l].locked = 1; held = held | mark
    :: else
    fi
}

/* the bookkeeping of `full` and `part` */
inline release_lease(l, mark) {
    if
    :: (held & mark) && LEFT_OPEN(l) -> lease[l].locked = 0
    :: (held & mark) && !LEFT_OPEN(l) -> forget_lease(l)
    :: else
    fi
}

/* how an attempt ended is drawn when it is first settled, and stays */
inline draw_outcome(k) {
    if
    :: ((batch >> k) & 1) && RUNS(k) -> memory[me].slot[k].outcome = DONE
    :: ((batch >> k) & 1) && RUNS(k) && memory[me].slot[k].attempt <= RETRIES -> memory[me].slot[k].outcome = AGAIN
    :: else
    fi
}

/* what is settled is forgotten; what is left moves to the first slot */
inline clear_batch() {
    if
    :: batch & 1 -> clear_slot(me, 0)
    :: else
    fi;
    if
    :: batch & 2 -> clear_slot(me, 1)
    :: else
    fi;
    if
    :: !memory[me].slot[0].lease && memory[me].slot[1].lease ->
        memory[me].slot[0].lease = memory[me].slot[1].lease;
        memory[me].slot[0].task = memory[me].slot[1].task;
        memory[me].slot[0].attempt = memory[me].slot[1].attempt;
        memory[me].slot[0].outcome = memory[me].slot[1].outcome;
        memory[me].slot[0].recorded = memory[me].slot[1].recorded;
        clear_slot(me, 1)
    :: else
    fi
}

inline end_of_transaction() {
    atomic {
        skip;
        d_step {
            batch = 0;
            first = 0;
            second = 0;
            era = 0;
            memory[me].settling = 0;
            if
            :: dead[me] -> clear_slot(me, 0); clear_slot(me, 1)
            :: else
            fi
        }
    }
}

proctype Settler(byte me) {
    byte batch; /* slots that are settled or given back: a bit for each */
    byte first, second; /* their leases, in order */
    byte held; /* leases that were still ours: 1 for the first, 2 for the second */
    bit seen; /* a lease, in the snapshot of a statement */
    bit era;

end:
    do
    /* settle, 0005_settle.sql: some of what it holds, from the lock on the first lease on */
    :: atomic {
            !dead[me] && (CAN_BE_SETTLED(0) || CAN_BE_SETTLED(1)) ->
            if
            :: CAN_BE_SETTLED(0) -> batch = 1
            :: CAN_BE_SETTLED(1) -> batch = 2
            :: CAN_BE_SETTLED(0) && CAN_BE_SETTLED(1) -> batch = 3
            fi;
            draw_outcome(0);
            draw_outcome(1);
            skip;
            d_step {
                first = (batch & 1 -> memory[me].slot[0].lease : memory[me].slot[1].lease);
                second = (batch & 2 -> memory[me].slot[1].lease : first);
                if
                :: first > second -> n = first; first = second; second = n
                :: else
                fi;
                memory[me].settling = 1;
                lock_lease(first, 1);
                printf("server %d settles slots %d (a bit for each): lease %d locked: %d\n", me, batch, first, held);
                era = epoch
            }
        }
        {
            if
            :: first != second -> d_step { !lease[second].locked -> lock_lease(second, 2) }
            :: first == second
            fi;
            /* insert into result / attempt ... on conflict do nothing; go_on; commit */
            atomic {
                skip;
                d_step {
                    k = 0;
                    do
                    :: k < 2 && ((batch >> k) & 1) ->
                        i = memory[me].slot[k].task;
                        n = memory[me].slot[k].attempt;
                        if
                        :: STILL_HELD(k) ->
                            if
                            :: memory[me].slot[k].outcome == DONE && !result[i] ->
                                result[i] = n;
                                memory[me].slot[k].recorded = 1
                            :: memory[me].slot[k].outcome == AGAIN && !HAS_ATTEMPT(i, n) ->
                                closed[i] = closed[i] | (1 << n);
                                line_up(i, n + 1);
                                memory[me].slot[k].recorded = 1
                            :: else
                            fi
                        :: else -> /* it is in `lost` unless this very attempt has its row */
                            what_we_recorded_is_not_lost = (!memory[me].slot[k].recorded || HAS_ROW(i, n));
                            assert(what_we_recorded_is_not_lost)
                        fi;
                        k++
                    :: k < 2 && !((batch >> k) & 1) -> k++
                    :: else -> break
                    od;
                    printf("server %d: settled; results %d %d\n", me, result[0], result[1]);
                    release_lease(first, 1);
                    release_lease(second, 2);
                    flush();
                    check();
                    held = 0
                };
                if
                :: cuts && !dead[me] -> cuts--; printf("server %d: that answer is lost\n", me) /* settle again */
                :: true -> clear_batch()
                fi
            }
        } unless {
            d_step { era != epoch -> held = 0 }
        }
        end_of_transaction()

    /* give_back, 0005_settle.sql: an attempt that never started, back into line as it was; go_on */
    :: atomic {
            !dead[me] && (GOES_BACK(0) || GOES_BACK(1) || (returns && (RUNS(0) || RUNS(1)))) ->
            if
            :: GOES_BACK(0) -> batch = 1
            :: GOES_BACK(1) -> batch = 2
            :: returns && RUNS(0) -> batch = 1; returns--; memory[me].slot[0].outcome = BACK
            :: returns && RUNS(1) -> batch = 2; returns--; memory[me].slot[1].outcome = BACK
            fi;
            memory[me].settling = 1;
            era = epoch;
            printf("server %d gives slots %d back\n", me, batch)
        }
        {
            d_step {
                !lease[memory[me].slot[batch - 1].lease].locked -> /* mine: for update; then a new statement */
                k = memory[me].slot[batch - 1].lease;
                i = memory[me].slot[batch - 1].task;
                n = lease[k].attempt[i]; /* 0 when it has been taken out already */
                if
                :: lease[k].server == me + 1 ->
                    if
                    :: STILL_OPEN(i, n) -> line_up(i, n)
                    :: else
                    fi;
                    if
                    :: LEFT_OPEN(k) -> lease[k].attempt[i] = 0
                    :: else -> forget_lease(k)
                    fi;
                    flush();
                    check()
                :: else
                fi
            }
            atomic {
                if
                :: cuts && !dead[me] -> cuts--; printf("server %d: that answer is lost\n", me) /* give back again */
                :: true -> clear_batch()
                fi
            }
        } unless {
            era != epoch
        }
        end_of_transaction()

    /* the connection of a claim fails: whether it was carried out is unknown */
    :: d_step {
            !dead[me] && cuts && memory[me].asked && !memory[me].doubtful ->
            cuts--;
            memory[me].doubtful = 1;
            printf("server %d gives up on its claim of lease %d\n", me, memory[me].asked)
        }

    /* drop_lease, 0005_settle.sql: give_back of all that such a claim took. The advisory lock waits for all claims. */
    :: d_step {
            !dead[me] && memory[me].doubtful && NOBODY_CLAIMS && !lease[memory[me].asked].locked ->
            k = memory[me].asked;
            printf("server %d drops lease %d\n", me, k);
            if
            :: lease[k].server == me + 1 ->
                i = 0;
                do
                :: i < TASKS ->
                    n = lease[k].attempt[i];
                    if
                    :: STILL_OPEN(i, n) -> line_up(i, n)
                    :: else
                    fi;
                    i++
                :: else -> break
                od;
                forget_lease(k);
                flush();
                check()
            :: else
            fi;
            memory[me].asked = 0;
            memory[me].doubtful = 0
        }

    /* beat, sql/beat.sql, finds no row: everything is dropped */
    :: d_step { !ALL_ENDED && born[me] && !dead[me] && !heartbeat[me] -> over(me) }

    /* lock_heartbeat, sql/lock_heartbeat.sql, waits for claims; then leave, sql/leave.sql, looks for their leases */
    :: d_step {
            !ALL_ENDED && !dead[me] && memory[me].draining && MAY_LEAVE(me) ->
            era = epoch;
            printf("server %d is about to leave\n", me);
#ifdef LEAVE_DURING_CLAIM
            seen = HAS_LEASES(me)
#endif
        }
        {
            if
            :: d_step { CAN_BE_LOCKED(me) -> deleting[me] = 1 }
                if
                :: d_step {
                        true ->
#ifndef LEAVE_DURING_CLAIM
                        seen = HAS_LEASES(me);
#endif
                        deleting[me] = 0;
                        if
                        :: !seen && heartbeat[me] -> heartbeat[me] = 0; flush(); check()
                        :: else
                        fi;
                        printf("server %d leaves, its leases are left to its peers: %d\n", me, seen);
                        if
                        :: !dead[me] -> over(me)
                        :: else
                        fi
                    }
                :: d_step { dead[me] -> deleting[me] = 0 } /* the session ends with its process */
                fi
            :: dead[me]
            fi
        } unless {
            era != epoch
        }
        atomic { seen = 0; era = 0 }
    od
}

/* rescue, 0006_rescue.sql, by the janitor of any server; two at a time */

/* A server that has only paused for longer than its lease is taken for lost, too. */
#define IS_LOST(s) (heartbeat[s] && (dead[s] || (faults && MAY_FAIL(s))))

inline next_lease() {
    l++;
    do
    :: l <= LEASES && !TAKES(l) -> l++
    :: else -> break
    od;
    k = 0
}

#ifdef ONE_STATEMENT_RESCUE
#define MAY_RESCUE(s) IS_LOST(s)
#else
#define MAY_RESCUE(s) (IS_LOST(s) && CAN_BE_LOCKED(s))
#endif

proctype Rescuer(bit is_second) {
    byte victim, l;
    byte taken[TASKS]; /* attempts: a bit for each */
    bit era;
#ifdef ONE_STATEMENT_RESCUE
    byte old_leases, old_results;
#endif

end:
    do
    /* delete from heartbeat: waits for claims that are under way, and for another rescuer */
    :: atomic {
            !ALL_ENDED && (!is_second || rescuing) && (MAY_RESCUE(0) || MAY_RESCUE(1) || MAY_RESCUE(2)) ->
            if
            :: MAY_RESCUE(0) -> victim = 0
            :: MAY_RESCUE(1) -> victim = 1
            :: MAY_RESCUE(2) -> victim = 2
            fi;
            skip;
            d_step {
                rescuing = (is_second -> rescuing : 1);
                faults = faults - !dead[victim];
                era = epoch;
#ifdef ONE_STATEMENT_RESCUE
                printf("rescue %d of server %d: takes its snapshot\n", is_second, victim);
                old_results = (result[0] > 0) | ((result[1] > 0) << 1);
                j = 1;
                do
                :: j <= LEASES -> old_leases = old_leases | ((lease[j].server == victim + 1) << j); j++
                :: else -> break
                od
            }
        }
        {
            d_step {
                CAN_BE_LOCKED(victim) ->
#endif
                l = 0;
                printf("rescue %d of server %d: its row is locked\n", is_second, victim);
                if
                :: heartbeat[victim] -> deleting[victim] = 1; next_lease()
                :: else -> l = LEASES + 2 /* not found: somebody else has rescued it */
                fi
            }
#ifndef ONE_STATEMENT_RESCUE
        }
        {
#endif
            do
            :: l > LEASES + 1 -> break

            /* perform 1 from lease ... order by id for update, delete: waits for settlements that are under way */
            :: d_step {
                    l <= LEASES && !lease[l].locked ->
                    if
                    :: TAKES(l) -> /* it may be gone by now */
                        lease[l].locked = 1;
                        printf("rescue %d takes lease %d\n", is_second, l);
                        taken[0] = taken[0] | (1 << lease[l].attempt[0]);
                        taken[1] = taken[1] | (1 << lease[l].attempt[1])
                    :: else
                    fi;
                    next_lease()
                }

            /* insert into result or attempt ... where not exists either; go_on; commit */
            :: d_step {
                    l == LEASES + 1 ->
                    i = 0;
                    do
                    :: i < TASKS ->
                        n = 1;
                        do
                        :: n <= ATTEMPTS ->
                            if
                            :: ((taken[i] >> n) & 1) && !HAS_ATTEMPT(i, n) && !HAS_ENDED(i) ->
                                if
                                :: n < LAST -> closed[i] = closed[i] | (1 << n); line_up(i, n + 1)
                                :: else -> result[i] = n
                                fi
                            :: else
                            fi;
                            n++
                        :: else -> break
                        od;
                        i++
                    :: else -> break
                    od;
                    l = 1;
                    do
                    :: l <= LEASES ->
                        if
                        :: TAKES(l) -> forget_lease(l)
                        :: else
                        fi;
                        l++
                    :: else -> break
                    od;
                    printf("rescue %d of server %d is committed\n", is_second, victim);
                    heartbeat[victim] = 0;
                    deleting[victim] = 0;
                    flush();
                    check()
                } -> break
            od
        } unless {
            era != epoch
        }
        atomic {
            rescuing = (is_second -> rescuing : 0);
            victim = 0;
            l = 0;
            taken[0] = 0;
            taken[1] = 0;
#ifdef ONE_STATEMENT_RESCUE
            old_leases = 0;
            old_results = 0;
#endif
            era = 0
        }
    od
}

/* what goes wrong */

#define USED(l) (lease[l].unflushed || lease[l].locked)
#define SOMETHING_TO_LOSE \
    (!NOBODY_CLAIMS || deleting[0] || deleting[1] || deleting[2] || USED(1) || USED(2) || \
    USED(3) || USED(4) || USED(5) || USED(6))

proctype Fate() {
    byte s;

end:
    do
    /* a server dies, or is asked to leave */
    :: atomic {
            !ALL_ENDED && faults && (MAY_FAIL(0) || MAY_FAIL(1) || MAY_FAIL(2)) ->
            if
            :: MAY_FAIL(0) -> s = 0
            :: MAY_FAIL(1) -> s = 1
            :: MAY_FAIL(2) -> s = 2
            fi;
            faults--;
            if
            :: d_step { over(s) }
            :: !memory[s].draining -> memory[s].draining = 1; printf("server %d is asked to leave\n", s)
            fi;
            s = 0
        }

    /* PostgreSQL crashes: open transactions are gone, and so are claims, if they were not flushed */
    :: atomic {
            !ALL_ENDED && crashes && SOMETHING_TO_LOSE ->
            s = 1;
            do
            :: s <= LEASES && lease[s].unflushed -> lease[s].unflushed = 0; s++
            :: s <= LEASES -> s++
            :: s > LEASES -> break
            od;
            skip;
            d_step {
                printf("PostgreSQL crashes\n");
                crashes--;
                epoch = 1;
                s = 0;
                k = 1;
                do
                :: k <= LEASES ->
                    lease[k].locked = 0;
                    if
                    :: lease[k].unflushed ->
                        i = 0;
                        do
                        :: i < TASKS ->
                            if
                            :: lease[k].attempt[i] -> ready[i] = lease[k].attempt[i]
                            :: else
                            fi;
                            i++
                        :: else -> break
                        od;
                        printf("the claim of lease %d was not flushed: it is lost\n", k);
                        forget_lease(k)
                    :: else
                    fi;
                    k++
                :: else -> break
                od;
                i = 0;
                do
                :: i < SERVERS -> shared[i] = 0; deleting[i] = 0; i++
                :: else -> break
                od;
                picked[0] = 0;
                picked[1] = 0;
#ifdef REUSED_LEASE_NUMBER
                sequence = flushed_sequence;
                k = 1;
                do
                :: k <= LEASES ->
                    if
                    :: lease[k].server && k >= sequence -> sequence = k + 1
                    :: else
                    fi;
                    k++
                :: else -> break
                od;
#endif
                check()
            }
        }
    od
}

/* every run comes to an end, and then every task has */
active proctype Judge() {
end:
    timeout ->
    every_task_ended = ALL_ENDED;
    assert(every_task_ended)
}

init {
    atomic {
        ready[0] = 1;
        ready[1] = 1;
        heartbeat[0] = 1;
        heartbeat[1] = 1;
        born[0] = 1;
        born[1] = 1;
        run Claimer(0);
        run Settler(0);
        run Claimer(1);
        run Settler(1);
        run Claimer(2);
        run Settler(2);
        run Rescuer(0);
        run Rescuer(1);
        run Fate()
    }
}
