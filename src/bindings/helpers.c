// SPDX-License-Identifier: GPL-2.0
/*
 * Inline functions and macros of the kernel, as functions that Rust can call.
 */
#include <linux/badblocks.h>
#include <linux/mm.h>
#include <linux/fserror.h>
#include <linux/huge_mm.h>
#include <linux/interval_tree_generic.h>
#include <linux/leafops.h>
#include <linux/list_lru.h>
#include <linux/memremap.h>
#include <linux/pagemap.h>
#include <linux/rcupdate.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/security.h>
#include <linux/set_memory.h>
#include <linux/shrinker.h>
#include <linux/siphash.h>
#include <linux/slab.h>
#include <linux/srcu.h>
#include <linux/unaligned.h>
#include <linux/userfaultfd_k.h>
#include <linux/wait_bit.h>

#include <asm/asm.h>
#include <asm/pgalloc.h>

#include "bindings.h"

/* env */

unsigned int rdax_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

void rdax_memalloc_nofs_restore(unsigned int flags)
{
	memalloc_nofs_restore(flags);
}

u64 rdax_siphash24(const u8 key[16], const void *data, size_t len)
{
	siphash_key_t k = { .key = { get_unaligned_le64(key), get_unaligned_le64(key + 8) } };

	return siphash(data, len, &k);
}

/* vfs: locks */

void rdax_mutex_lock_nested(struct mutex *lock, unsigned int subclass)
{
	mutex_lock_nested(lock, subclass);
}

bool rdax_mutex_trylock(struct mutex *lock)
{
	return mutex_trylock(lock);
}

void rdax_inode_lock(struct inode *inode)
{
	inode_lock(inode);
}

bool rdax_inode_trylock(struct inode *inode)
{
	return inode_trylock(inode);
}

void rdax_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

void rdax_inode_lock_shared(struct inode *inode)
{
	inode_lock_shared(inode);
}

bool rdax_inode_trylock_shared(struct inode *inode)
{
	return inode_trylock_shared(inode);
}

void rdax_inode_unlock_shared(struct inode *inode)
{
	inode_unlock_shared(inode);
}

void rdax_filemap_invalidate_lock(struct address_space *mapping)
{
	filemap_invalidate_lock(mapping);
}

void rdax_filemap_invalidate_unlock(struct address_space *mapping)
{
	filemap_invalidate_unlock(mapping);
}

bool rdax_sb_start_intwrite_trylock(struct super_block *sb)
{
	return sb_start_intwrite_trylock(sb);
}

void rdax_sb_end_intwrite(struct super_block *sb)
{
	sb_end_intwrite(sb);
}

/* dax: work */

void rdax_init_delayed_work(struct delayed_work *work, work_func_t func)
{
	INIT_DELAYED_WORK(work, func);
}

/* vfs: inodes */

struct inode *rdax_alloc_inode_sb(struct super_block *sb, struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

bool rdax_inode_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

loff_t rdax_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

void rdax_i_size_write(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

uid_t rdax_i_uid_read(const struct inode *inode)
{
	return i_uid_read(inode);
}

gid_t rdax_i_gid_read(const struct inode *inode)
{
	return i_gid_read(inode);
}

void rdax_i_uid_write(struct inode *inode, uid_t uid)
{
	i_uid_write(inode, uid);
}

void rdax_i_gid_write(struct inode *inode, gid_t gid)
{
	i_gid_write(inode, gid);
}

void rdax_inode_get_atime(const struct inode *inode, struct timespec64 *ts)
{
	*ts = inode_get_atime(inode);
}

void rdax_inode_get_mtime(const struct inode *inode, struct timespec64 *ts)
{
	*ts = inode_get_mtime(inode);
}

void rdax_inode_get_ctime(const struct inode *inode, struct timespec64 *ts)
{
	*ts = inode_get_ctime(inode);
}

void rdax_inode_set_atime(struct inode *inode, s64 sec, u32 nsec)
{
	inode_set_atime(inode, sec, nsec);
}

void rdax_inode_set_mtime(struct inode *inode, s64 sec, u32 nsec)
{
	inode_set_mtime(inode, sec, nsec);
}

void rdax_inode_set_ctime(struct inode *inode, s64 sec, u32 nsec)
{
	inode_set_ctime(inode, sec, nsec);
}

u32 rdax_encode_dev(dev_t dev)
{
	return new_encode_dev(dev);
}

dev_t rdax_decode_dev(u32 dev)
{
	return new_decode_dev(dev);
}

void rdax_set_open_direct(struct file *file)
{
	file->f_mode |= FMODE_CAN_ODIRECT | FMODE_NOWAIT;
}

void rdax_set_cached_link(struct inode *inode, char *link, int len)
{
	inode_set_cached_link(inode, link, len);
}

void rdax_cache_no_acl(struct inode *inode)
{
	cache_no_acl(inode);
}

void rdax_posix_acl_release(struct posix_acl *acl)
{
	posix_acl_release(acl);
}

/* An inline function of a kernel without security modules. */
int rdax_security_inode_init_security(struct inode *inode, struct inode *dir,
				      const struct qstr *name,
				      const initxattrs initxattrs, void *data)
{
	return security_inode_init_security(inode, dir, name, initxattrs, data);
}

/* vfs: objects that are freed when memory is short */

void rdax_init_list_head(struct list_head *links)
{
	INIT_LIST_HEAD(links);
}

int rdax_list_lru_init(struct list_lru *lru, struct shrinker *shrinker)
{
	return list_lru_init_memcg(lru, shrinker);
}

/* The lists of the memory cgroup that the object is charged to are made as well. */
void *rdax_alloc_lru(struct kmem_cache *cache, struct list_lru *lru)
{
	return kmem_cache_alloc_lru(cache, lru, GFP_KERNEL);
}

unsigned long rdax_list_lru_count(struct list_lru *lru, struct shrink_control *sc)
{
	return list_lru_shrink_count(lru, sc);
}

unsigned long rdax_list_lru_walk(struct list_lru *lru, struct shrink_control *sc,
				 enum lru_status (*isolate)(struct list_head *item,
							    struct list_lru_one *list, void *arg),
				 void *arg)
{
	return list_lru_shrink_walk(lru, sc, isolate, arg);
}

/* vfs: files and directories */

const struct qstr *rdax_dentry_name(const struct dentry *dentry)
{
	return &dentry->d_name;
}

bool rdax_dir_emit(struct dir_context *ctx, const char *name, int len, u64 ino, unsigned int type)
{
	return dir_emit(ctx, name, len, ino, type);
}

bool rdax_dir_emit_dots(struct file *file, struct dir_context *ctx)
{
	return dir_emit_dots(file, ctx);
}

void rdax_file_accessed(struct file *file)
{
	file_accessed(file);
}

ssize_t rdax_generic_write_sync(struct kiocb *iocb, ssize_t count)
{
	return generic_write_sync(iocb, count);
}

int rdax_finish_open_simple(struct file *file, int error)
{
	return finish_open_simple(file, error);
}

bool rdax_mapping_supported(const struct vm_area_desc *desc, const struct inode *inode,
			    struct dax_device *dax_dev)
{
	return daxdev_mapping_supported(desc, inode, dax_dev);
}

bool rdax_fileattr_has_fsx(const struct file_kattr *fa)
{
	return fileattr_has_fsx(fa);
}

bool rdax_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

void rdax_cond_resched(void)
{
	cond_resched();
}

/* vfs: the page cache */

/* Locked, with a reference, created if it did not exist; or an error. */
struct folio *rdax_folio_to_write(struct address_space *mapping, unsigned long index)
{
	return __filemap_get_folio(mapping, index, FGP_WRITEBEGIN, mapping_gfp_mask(mapping));
}

void *rdax_folio_address(const struct folio *folio)
{
	return folio_address(folio);
}

bool rdax_folio_test_uptodate(struct folio *folio)
{
	return folio_test_uptodate(folio);
}

void rdax_folio_mark_uptodate(struct folio *folio)
{
	folio_mark_uptodate(folio);
}

void rdax_folio_put(struct folio *folio)
{
	folio_put(folio);
}

/* vfs: super blocks */

/* The answers to FS_IOC_GETFSUUID and FS_IOC_GETFSSYSFSPATH. */
void rdax_set_names(struct super_block *sb, const u8 uuid[16])
{
	super_set_uuid(sb, uuid, 16);
	super_set_sysfs_name_bdev(sb);
}

void rdax_report_damage(struct super_block *sb, int error)
{
	fserror_report_metadata(sb, error, GFP_NOFS);
}

/* For the holder of the context (fsopen(2)); a caller of mount(2) has none to read. */
void rdax_fc_error(struct fs_context *fc, const char *message)
{
	if (fc->log.log)
		errorf(fc, "%s", message);
}

void rdax_panic(const char *name)
{
	panic("rdax: %s: errors=panic", name);
}

bool rdax_printk_ratelimit(void)
{
	return printk_ratelimit();
}

/* pmem */

bool rdax_bdev_has_dax(struct block_device *bdev)
{
	return blk_queue_dax(bdev->bd_disk->queue);
}

/*
 * Where the driver counts the ranges of bad blocks that it knows of, until the
 * device is removed.
 */
const int *rdax_bdev_badblocks(struct block_device *bdev)
{
	static const int none;
	struct badblocks *bb = bdev->bd_disk->bb;

	return bb ? &bb->count : &none;
}

bool rdax_bdev_read_only(struct block_device *bdev)
{
	return bdev_read_only(bdev);
}

/* Where a partition starts on its disk, in bytes. */
u64 rdax_bdev_start(struct block_device *bdev)
{
	return get_start_sect(bdev) << SECTOR_SHIFT;
}

u64 rdax_bdev_bytes(struct block_device *bdev)
{
	return bdev_nr_bytes(bdev);
}

unsigned long rdax_read_mc(void *to, const void *from, unsigned long len)
{
	unsigned long words = len / 8, bytes = len % 8, value;

	to += words * 8;
	from += words * 8;
	words = -words;
	asm volatile("test %[words], %[words]\n"
		     "jz 2f\n"
		     "1: mov (%[from], %[words], 8), %[value]\n"
		     "mov %[value], (%[to], %[words], 8)\n"
		     "inc %[words]\n"
		     "jnz 1b\n"
		     "2:\n"
		     _ASM_EXTABLE_TYPE(1b, 2b, EX_TYPE_DEFAULT_MCE_SAFE)
		     : [words] "+r" (words), [value] "=&r" (value)
		     : [from] "r" (from), [to] "r" (to)
		     : "memory", "cc");
	if (words || !bytes)
		return -words * 8 + (words ? bytes : 0);
	to += bytes;
	from += bytes;
	bytes = -bytes;
	asm volatile("1: movzbl (%[from], %[bytes]), %k[value]\n"
		     "mov %b[value], (%[to], %[bytes])\n"
		     "inc %[bytes]\n"
		     "jnz 1b\n"
		     "2:\n"
		     _ASM_EXTABLE_TYPE(1b, 2b, EX_TYPE_DEFAULT_MCE_SAFE)
		     : [bytes] "+r" (bytes), [value] "=&q" (value)
		     : [from] "r" (from), [to] "r" (to)
		     : "memory", "cc");
	return -bytes;
}

/*
 * Copies that do not sleep: they end early at a user page that is not present, or
 * may not be written.
 */
size_t rdax_copy_mc_to_iter(const void *from, size_t len, struct iov_iter *iter)
{
	size_t copied;

	pagefault_disable();
	copied = _copy_mc_to_iter(from, len, iter);
	pagefault_enable();
	return copied;
}

size_t rdax_copy_from_iter_flushcache(void *to, size_t len, struct iov_iter *iter)
{
	size_t copied;

	pagefault_disable();
	copied = _copy_from_iter_flushcache(to, len, iter);
	pagefault_enable();
	return copied;
}

size_t rdax_copy_from_iter(void *to, size_t len, struct iov_iter *iter)
{
	size_t copied;

	pagefault_disable();
	copied = _copy_from_iter(to, len, iter);
	pagefault_enable();
	return copied;
}

void rdax_iov_iter_truncate(struct iov_iter *iter, size_t len)
{
	iov_iter_truncate(iter, len);
}

void rdax_pmem_wmb(void)
{
	pmem_wmb();
}

void rdax_synchronize_rcu_tasks(void)
{
	synchronize_rcu_tasks();
}

/* For users of the device that may sleep: removal waits for them. */
DEFINE_STATIC_SRCU(rdax_access);

int rdax_access_begin(void)
{
	return srcu_read_lock(&rdax_access);
}

void rdax_access_end(int index)
{
	srcu_read_unlock(&rdax_access, index);
}

void rdax_access_wait(void)
{
	synchronize_srcu(&rdax_access);
}

void rdax_non_block_start(void)
{
	non_block_start();
}

void rdax_non_block_end(void)
{
	non_block_end();
}

/* The page map that has all these pages, with a reference; NULL if there is not one. */
struct dev_pagemap *rdax_pagemap_get(unsigned long pfn, unsigned long nr)
{
	struct dev_pagemap *pgmap = get_dev_pagemap(pfn);
	u64 first = PFN_PHYS(pfn), last = PFN_PHYS(pfn + nr) - 1;
	int i;

	if (!pgmap)
		return NULL;
	for (i = 0; i < pgmap->nr_range; i++) {
		const struct range *range = &pgmap->ranges[i];

		if (first >= range->start && last <= range->end)
			return pgmap;
	}
	put_dev_pagemap(pgmap);
	return NULL;
}

void rdax_pagemap_put(struct dev_pagemap *pgmap)
{
	put_dev_pagemap(pgmap);
}

/* Until @count is 0: whoever sets it to 0 wakes its address. */
void rdax_wait_for_zero(s64 *count)
{
	wait_var_event(count, READ_ONCE(*count) == 0);
}

bool rdax_cpu_has_aes(void)
{
	return boot_cpu_has(X86_FEATURE_AES);
}

/* dax: locks */

void rdax_sb_start_pagefault(struct super_block *sb)
{
	sb_start_pagefault(sb);
}

void rdax_sb_end_pagefault(struct super_block *sb)
{
	sb_end_pagefault(sb);
}

void rdax_filemap_invalidate_lock_shared(struct address_space *mapping)
{
	filemap_invalidate_lock_shared(mapping);
}

void rdax_filemap_invalidate_unlock_shared(struct address_space *mapping)
{
	filemap_invalidate_unlock_shared(mapping);
}

bool rdax_filemap_invalidate_trylock(struct address_space *mapping)
{
	return down_write_trylock(&mapping->invalidate_lock);
}

void rdax_init_rwsem(struct rw_semaphore *lock)
{
	init_rwsem(lock);
}

bool rdax_mapping_writably_mapped(const struct address_space *mapping)
{
	return mapping_writably_mapped(mapping);
}

/* Private to the kernel's own code. */
INTERVAL_TREE_DEFINE(struct vm_area_struct, shared.rb, unsigned long,
		     shared.rb_subtree_last, vma_start_pgoff, vma_last_pgoff,
		     static inline, rdax_vmas)

/*
 * The memory manager clears VM_LOCKED in mappings of DAX files, which need not be
 * locked to stay in memory. Mappings that had it when they were made have an ->open, and
 * no others have one; and a process may have locked all its future mappings.
 */
static bool was_locked(const struct vm_area_struct *vma)
{
	return READ_ONCE(vma->vm_ops)->open || READ_ONCE(vma->vm_mm->def_flags) & VM_LOCKED;
}

static bool is_stored_through(const struct vm_area_struct *vma)
{
	const vm_flags_t flags = VM_SHARED | VM_WRITE;

	return (READ_ONCE(vma->vm_flags) & flags) == flags;
}

/* A locked mapping whose stores reach the file. */
bool rdax_vma_is_locked(const struct vm_area_struct *vma)
{
	return is_stored_through(vma) && was_locked(vma);
}

/* Whether userfaultfd may split 2 MiB in one piece during a fault. */
bool rdax_vma_is_watched(const struct vm_area_struct *vma)
{
	return userfaultfd_armed((struct vm_area_struct *)vma);
}

/*
 * Sets the bits in @pages of those of the @nr pages from @first on that are in a locked
 * mapping; if @writable, only in one whose stores reach the file.
 */
void rdax_mapping_locked(struct address_space *mapping, pgoff_t first, unsigned long nr,
			 bool writable, unsigned long *pages)
{
	const pgoff_t last = first + nr - 1;
	struct vm_area_struct *vma;

	i_mmap_lock_read(mapping);
	for (vma = rdax_vmas_iter_first(&mapping->i_mmap, first, last); vma;
	     vma = rdax_vmas_iter_next(vma, first, last)) {
		pgoff_t from = max(first, vma_start_pgoff(vma));
		pgoff_t to = min(last, vma_last_pgoff(vma));

		if (was_locked(vma) && (!writable || is_stored_through(vma)))
			bitmap_set(pages, from - first, to - from + 1);
	}
	i_mmap_unlock_read(mapping);
}

/* ->open of a locked mapping: the copy of a child is not locked. */
void rdax_vma_is_copied(struct vm_area_struct *vma, const struct vm_operations_struct *ops)
{
	if (vma->vm_mm != current->mm)
		vma->vm_ops = ops;
}

/* MAP_LOCKED, or mlockall(). */
bool rdax_desc_is_locked(const struct vm_area_desc *desc)
{
	return vma_desc_test(desc, VMA_LOCKED_BIT);
}

/* Whether the write-back is part of a sync of the whole file system. */
bool rdax_wbc_is_of_sync(const struct writeback_control *wbc)
{
	return wbc->sync_mode == WB_SYNC_ALL || wbc->tagged_writepages;
}

void rdax_inode_dirtied_now(struct inode *inode)
{
	inode->dirtied_when = jiffies;
}

bool rdax_sb_is_freezing(const struct super_block *sb)
{
	return READ_ONCE(sb->s_writers.frozen) >= SB_FREEZE_PAGEFAULT;
}

/* dax: the tree of chunks */

void rdax_xa_init(struct xarray *xa)
{
	xa_init_flags(xa, XA_FLAGS_ACCOUNT);
}

bool rdax_xa_marked(const struct xarray *xa, xa_mark_t mark)
{
	return xa_marked(xa, mark);
}

/* dax: pages */

struct page *rdax_pfn_to_page(unsigned long pfn)
{
	return pfn_to_page(pfn);
}

struct page *rdax_zero_page(void)
{
	return ZERO_PAGE(0);
}

/* 2 MiB of zeros, if there is memory for them at once. */
struct folio *rdax_alloc_huge_zero(void)
{
	gfp_t gfp = GFP_NOWAIT | __GFP_ZERO | __GFP_NOMEMALLOC;

	return folio_alloc(gfp & ~__GFP_RECLAIM, PMD_ORDER);
}

bool rdax_page_poisoned(const struct page *page)
{
	return PageHWPoison(page);
}

void rdax_page_set_poisoned(struct page *page)
{
	SetPageHWPoison(page);
}

/* The media under @page is good again: the kernel maps it again. */
int rdax_page_clear_poisoned(struct page *page)
{
	return TestClearPageHWPoison(page) ? clear_mce_nospec(page_to_pfn(page)) : 0;
}

bool rdax_page_test_clear_dirty(struct page *page)
{
	return PageDirty(page) && TestClearPageDirty(page);
}

struct folio *rdax_page_folio(struct page *page)
{
	return page_folio(page);
}

/* Idle pages have no reference: get_page() would complain. */
void rdax_page_get(struct page *page)
{
	folio_ref_inc(page_folio(page));
}

void rdax_page_put(struct page *page)
{
	put_page(page);
}

bool rdax_folio_is_huge(const struct folio *folio)
{
	return folio_test_large(folio);
}

int rdax_folio_ref_count(const struct folio *folio)
{
	return folio_ref_count(folio);
}

/*
 * Whether somebody refers to the folio other than by page tables. No entry is added meanwhile, so
 * the references, which are counted first, are not fewer than the entries counted afterwards.
 */
bool rdax_folio_is_held(const struct folio *folio)
{
	int refs = folio_ref_count(folio);

	smp_rmb();
	return refs > folio_mapcount(folio);
}

void rdax_folio_lock(struct folio *folio)
{
	folio_lock(folio);
}

void rdax_folio_unlock(struct folio *folio)
{
	folio_unlock(folio);
}

/*
 * Waits until nobody refers to @folio: free_zone_device_folio() wakes its waiters. If
 * @interruptible, waits until a signal arrives, or for 20 ms: during the wait it may
 * be mapped again, and would not become idle until that mapping is gone, too.
 */
int rdax_folio_wait_idle(struct folio *folio, bool interruptible)
{
	long left;

	if (!interruptible) {
		wait_var_event(&folio->page, folio_ref_count(folio) == 0);
		return 0;
	}
	left = ___wait_var_event(&folio->page,
				 ___wait_cond_timeout(folio_ref_count(folio) == 0),
				 TASK_INTERRUPTIBLE, 0, HZ / 50,
				 __ret = schedule_timeout(__ret));
	return min(left, 0);
}

/*
 * Makes one folio of 512 idle pages, without a reference. zone_device_page_init()
 * is the exported way; unlike the pages that it is meant for, pages of fsdax
 * hold no reference to their device.
 */
void rdax_make_huge(struct page *page)
{
	struct dev_pagemap *pgmap = page_pgmap(page);

	zone_device_page_init(page, pgmap, PMD_ORDER);
	percpu_ref_put_many(&pgmap->ref, 1 << PMD_ORDER);
	unlock_page(page);
	set_page_count(page, 0);
}

/* Whether an entry of 2 MiB maps the address. */
bool rdax_pmd_is_huge(const struct vm_fault *vmf)
{
	return vmf->pmd && pmd_trans_huge(pmdp_get_lockless(vmf->pmd));
}

/*
 * Gives the memory manager the locked zero page to copy; the memory manager unlocks it. Fails if
 * another CPU has it locked for the same purpose: nobody should wait for that.
 */
bool rdax_cow_zero(struct vm_fault *vmf)
{
	struct page *zero = ZERO_PAGE(0);

	if (!trylock_page(zero))
		return false;
	get_page(zero);
	vmf->page = zero;
	return true;
}

/*
 * Waits until the copies of the zero page that have begun are mapped: the memory manager keeps it
 * locked until then.
 */
void rdax_wait_for_zero_copies(void)
{
	folio_wait_locked(page_folio(ZERO_PAGE(0)));
}

/* Whether nothing is mapped in the 2 MiB around the address, nor ever was. */
bool rdax_pmd_is_none(const struct vm_fault *vmf)
{
	return pmd_none(pmdp_get_lockless(vmf->pmd));
}

/*
 * Installs the page table that the memory manager has allocated for the fault while no lock
 * of the file system was held: otherwise the insertion of a page would allocate another one.
 */
void rdax_install_page_table(struct vm_fault *vmf)
{
	struct mm_struct *mm = vmf->vma->vm_mm;
	spinlock_t *lock;

	if (!vmf->prealloc_pte)
		return;
	lock = pmd_lock(mm, vmf->pmd);
	if (pmd_none(*vmf->pmd)) {
		mm_inc_nr_ptes(mm);
		/* The content of the table is visible before the table: see pmd_install(). */
		smp_wmb();
		pmd_populate(mm, vmf->pmd, vmf->prealloc_pte);
		vmf->prealloc_pte = NULL;
	}
	spin_unlock(lock);
}

/*
 * Locks the page table of the fault, and returns its entry for @address; NULL if there is none.
 * pte_offset_map_lock() is not exported; this is what it does.
 */
static pte_t *lock_page_table(struct vm_fault *vmf, unsigned long address, spinlock_t **lock)
{
	pmd_t pmd;

	rcu_read_lock();
	pmd = pmdp_get_lockless(vmf->pmd);
	if (pmd_none(pmd) || !pmd_present(pmd) || pmd_leaf(pmd))
		goto none;
	*lock = pte_lockptr(vmf->vma->vm_mm, &pmd);
	spin_lock(*lock);
	/* The table itself may have been removed meanwhile; RCU keeps its memory. */
	if (pmd_same(pmd, pmdp_get_lockless(vmf->pmd)))
		return pte_offset_kernel(&pmd, address);
	spin_unlock(*lock);
none:
	rcu_read_unlock();
	return NULL;
}

static void unlock_page_table(spinlock_t *lock)
{
	spin_unlock(lock);
	rcu_read_unlock();
}

static noinline void clear_pte_marker(struct vm_fault *vmf)
{
	spinlock_t *lock;
	pte_t *pte = lock_page_table(vmf, vmf->address, &lock);

	if (!pte)
		return;
	if (pte_same(vmf->orig_pte, ptep_get(pte)))
		pte_clear(vmf->vma->vm_mm, vmf->address, pte);
	unlock_page_table(lock);
}

/*
 * Removes the marker that the fault has found, a write-protection by userfaultfd of a page that
 * is not mapped: nothing can be inserted over it.
 */
void rdax_clear_pte_marker(struct vm_fault *vmf)
{
	if (!(vmf->flags & FAULT_FLAG_ORIG_PTE_VALID) || pte_none(vmf->orig_pte) ||
	    pte_present(vmf->orig_pte))
		return;
	if (pte_is_uffd_wp_marker(vmf->orig_pte))
		clear_pte_marker(vmf);
}

/*
 * Makes those of the @nr entries from @address on writable that map the pages from @page on and
 * are read-only; sets the bits in @none of missing entries.
 * (ptep_set_access_flags() is not exported.)
 */
static void make_writable(struct vm_fault *vmf, unsigned long address, struct page *page,
			  unsigned int nr, unsigned long *none)
{
	unsigned long pfn = page_to_pfn(page);
	spinlock_t *lock;
	pte_t *pte = lock_page_table(vmf, address, &lock);
	unsigned int i;

	if (!pte)
		return;
	for (i = 0; i < nr; i++, pte++) {
		pte_t entry = ptep_get(pte);

		if (pte_none(entry)) {
			__set_bit(i, none);
		} else if (pte_present(entry) && !pte_protnone(entry) && !pte_write(entry) &&
			   !pte_uffd(entry) && pte_pfn(entry) == pfn + i) {
			entry = pte_clear_saveddirty(pte_mkwrite_novma(entry));
			set_pte(pte, pte_mkyoung(pte_mkdirty(entry)));
		}
	}
	unlock_page_table(lock);
}

/*
 * Maps the @nr pages from @page on at @address and after, up to BITS_PER_LONG, writable, in the
 * page table of the fault. Other entries stay.
 */
void rdax_insert_writable(struct vm_fault *vmf, unsigned long address, struct page *page,
			  unsigned int nr)
{
	unsigned long none = 0, bit, unused = 0;

	make_writable(vmf, address, page, nr, &none);
	if (!none)
		return;
	for_each_set_bit(bit, &none, BITS_PER_LONG) {
		struct vm_fault at = { .vma = vmf->vma, .address = address + (bit << PAGE_SHIFT) };

		/* Read-only: a writable insertion would warn if something else is mapped by now. */
		rdax_page_get(page + bit);
		vmf_insert_page_mkwrite(&at, page + bit, false);
		rdax_page_put(page + bit);
	}
	make_writable(vmf, address, page, nr, &unused);
}

void rdax_mapping_set_error(struct address_space *mapping, int error)
{
	mapping_set_error(mapping, error);
}
